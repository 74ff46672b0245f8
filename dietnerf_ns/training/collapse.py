"""Detects early that training has collapsed, so that it can be restarted. Independent of trainers and models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from torch import Tensor

from dietnerf_ns.data.pixel_samplers import ForegroundPixelSampler
from dietnerf_ns.utils.images import Blend

CHECKED_PART_OF_RUN = 1 / 3
FEWEST_WINDOWS = 4
WINDOWS_PER_RUN = 40
MIN_WINDOW_STEPS = 50
MIN_GAIN_DB = 0.5
CLEAR_GAIN_DB = 3.0
MIN_PROGRESS_DB = 0.25


def photo_variance(dataset: InputDataset, blend: Blend, sampler: PixelSampler | None) -> float:
    """Mean squared distance per channel of the training rays' colours from their mean colour, RGB in [0, 1].

    Args:
        dataset: the training views; one photo is in memory at a time.
        blend: composes an RGBA photo with the background that the model renders; leaves RGB as it is.
        sampler: chooses the pixels of training rays, those inside the dataset's masks if it does not ignore them.
    """
    share = sampler.foreground_share if isinstance(sampler, ForegroundPixelSampler) else 0.0
    everywhere, foreground = torch.zeros(2, 1 + 2 * 3, dtype=torch.float64)
    for index in range(len(dataset)):
        data = dataset.get_data(index, image_type="float32")
        colours = blend(data["image"])
        taken = torch.ones(colours.shape[:2], dtype=torch.bool)
        if "mask" in data and sampler is not None and not sampler.config.ignore_mask:
            taken = data["mask"][..., 0]
        everywhere += _sums(colours, taken)
        if share > 0 and isinstance(sampler, ForegroundPixelSampler):
            foreground += _sums(colours, taken & sampler.foreground(index))
    mixed = everywhere / everywhere[0]
    if foreground[0] > 0:
        mixed = (1 - share) * mixed + share * foreground / foreground[0]
    return float((mixed[4:] - mixed[1:4].square()).mean())


def _sums(colours: Float[Tensor, "height width 3"], taken: Bool[Tensor, "height width"]) -> Float[Tensor, "7"]:
    """Number of the pixels that are taken, and the sums of their colours and of these squared."""
    pixels = colours[taken].double()
    return torch.cat([torch.tensor([float(len(pixels))]), pixels.sum(dim=0), pixels.square_().sum(dim=0)])


@dataclass
class CollapseDetector:
    """Watches the first third of a run, at least four windows. A window is a fortieth of the run, at least 50 steps.

    Steps whose rays have another variance are not judged, and two windows after them are watched in any case.

    A collapsed field shows one colour everywhere: opacity is 0 or 1 on all rays and no gradient leads out of this
    state. The best that one colour can reach is the photos' mean colour, whose squared error is the photos' variance.
    Or a network is saturated: the object has its shape, in a colour that no gradient changes. Training counts as
    collapsed when, over a whole window after the first, the training rays are not 0.5 dB better than the mean colour,
    or neither 3 dB better than it nor 0.25 dB better than over the window before.

    All fields are numbers that are saved with a run and restored, so that a resumed run decides as it would have.
    """

    restarts: int = 0
    """Number of restarts so far."""
    given_up: bool = False
    """Training collapsed after the last restart; nothing is watched any more."""
    first_step: int = 0
    """Step at which the present attempt started."""
    steps: int = 0
    """Steps in the current window; steps that were left out are not counted."""
    window_start: int = 0
    """First step of the current window."""
    squared_error: float | Float[Tensor, ""] = 0.0
    """Sum of the steps' mean squared errors in the current window."""
    opacity: float | Float[Tensor, ""] = 0.0
    """Sum of the steps' mean opacities in the current window."""
    windows: int = 0
    """Windows of the present attempt that are complete."""
    last_psnr: float = 0.0
    """PSNR of the training rays over the previous window, in dB."""

    def state(self) -> dict[str, int | float]:
        """The fields as plain numbers."""
        return vars(self) | {"squared_error": float(self.squared_error), "opacity": float(self.opacity)}

    def update(
        self,
        step: int,
        *,
        mse: Float[Tensor, ""],
        opacity: Float[Tensor, ""],
        total_steps: int,
        photo_variance: float,
        other_rays: int = 0,
    ) -> str | None:
        """Take in a step.

        Args:
            step: step of the run.
            mse: mean squared error of the step's training rays, RGB in [0, 1].
            opacity: mean accumulation of these rays, in [0, 1].
            total_steps: number of steps of the run.
            photo_variance: see `photo_variance`.
            other_rays: number of an attempt's first steps whose rays have another variance. No window with one of them
                is judged.

        Returns:
            At the end of a window in which training has collapsed a description, otherwise None.
        """
        window = _window(total_steps)
        last = max(FEWEST_WINDOWS * window, total_steps * CHECKED_PART_OF_RUN, other_rays + 2 * window)
        if self.given_up or step - self.first_step >= last:
            return None
        if self.steps == 0:
            self.window_start = step
        # Sums stay tensors until the window ends: reading them would make a GPU wait at every step.
        self.squared_error, self.opacity, self.steps = self.squared_error + mse, self.opacity + opacity, self.steps + 1
        if self.steps < window:
            return None
        # More steps than the window has if it is shorter than that of the run which this one resumes.
        psnr, mean_opacity = _psnr(float(self.squared_error) / self.steps), float(self.opacity) / self.steps
        self.squared_error, self.opacity, self.steps, self.windows = 0.0, 0.0, 0, self.windows + 1
        one_colour, before, self.last_psnr = _psnr(photo_variance), self.last_psnr, psnr
        needed = max(one_colour + MIN_GAIN_DB, min(one_colour + CLEAR_GAIN_DB, before + MIN_PROGRESS_DB))
        if self.windows == 1 or self.window_start - self.first_step < other_rays or psnr >= needed:
            return None
        state = (
            "empty" if mean_opacity < 0.01 else "opaque" if mean_opacity > 0.99 else f"of opacity {mean_opacity:.2f}"
        )
        return f"the scene is {state}; training rays have PSNR {psnr:.1f} dB, a single colour {one_colour:.1f} dB"

    def can_restart(self, step: int, *, limit: int, total_steps: int, other_rays: int = 0) -> bool:
        """Whether another attempt could be judged before the run ends, and is allowed.

        Args:
            step: after which it would start.
            limit: number of restarts that are allowed.
            total_steps: number of steps of the run.
            other_rays: see `update`.
        """
        needed = other_rays + 2 * _window(total_steps)
        return self.restarts < limit and total_steps - step - 1 >= needed

    def give_up(self) -> None:
        """Watch nothing any more."""
        self.given_up = True

    def restart(self, step: int) -> None:
        """Begin a new attempt at a step."""
        self.restarts += 1
        self.first_step, self.windows = step, 0


def _window(total_steps: int) -> int:
    """Number of steps that are judged together."""
    return max(MIN_WINDOW_STEPS, total_steps // WINDOWS_PER_RUN)


def _psnr(mse: float) -> float:
    return math.inf if mse <= 0 else -10 * math.log10(mse)
