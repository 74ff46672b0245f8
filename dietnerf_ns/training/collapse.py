"""Notices early that training has collapsed, so that it can start again. Knows nothing of trainers or models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from torch import Tensor

from dietnerf_ns.data.pixel_samplers import ForegroundPixelSampler
from dietnerf_ns.semantic.consistency import Blend

CHECKED_PART_OF_RUN = 1 / 3
WINDOWS_PER_RUN = 40
MIN_WINDOW_STEPS = 50
MIN_GAIN_DB = 0.5
CLEAR_GAIN_DB = 3.0
MIN_PROGRESS_DB = 0.25


def photo_variance(dataset: InputDataset, blend: Blend, sampler: PixelSampler) -> float:
    """Mean squared distance per channel of the training rays' pixels from their mean colour, RGB in [0, 1].

    Args:
        dataset: the training views.
        blend: puts an RGBA photo on the background that the model renders; leaves RGB as it is.
        sampler: which pixels training takes, and how often.
    """
    photos = (blend(dataset.get_image_float32(index)) for index in range(len(dataset)))
    pixels = torch.cat([photo.reshape(-1, 3) for photo in photos])
    pixel_probabilities = torch.full((len(pixels), 1), 1 / len(pixels))
    if isinstance(sampler, ForegroundPixelSampler):
        pixel_probabilities = sampler.pixel_probabilities(len(pixels))[:, None]
    mean = (pixel_probabilities * pixels).sum(dim=0)
    return float((pixel_probabilities * (pixels - mean) ** 2).sum(dim=0).mean())


@dataclass
class CollapseDetector:
    """Watches the first third of a run in windows of a fortieth of it, at least 50 steps each.

    A collapsed field shows one colour everywhere: opacity is 0 or 1 on all rays and no gradient brings it back. The
    best that one colour can do is the photos' mean colour, whose squared error is their variance. Or a network is
    saturated: the thing has its shape, in a colour that no gradient changes. Training has collapsed when, over a whole
    window after the first, the training rays are not 0.5 dB better than the mean colour; or not 3 dB better than it and
    not 0.25 dB better than over the window before.

    All fields are numbers, to be saved with a run and restored, so that a resumed run decides as it would have.
    """

    restarts: int = 0
    """How often training has started again."""
    given_up: bool = False
    """Training collapsed after the last restart; nothing is watched any more."""
    first_step: int = 0
    """Where this attempt started."""
    steps: int = 0
    """Steps in the current window."""
    squared_error: float | Float[Tensor, ""] = 0.0
    """Sum of the steps' mean squared errors in the current window."""
    opacity: float | Float[Tensor, ""] = 0.0
    """Sum of the steps' mean opacities in the current window."""
    last_psnr: float = 0.0
    """PSNR of the training rays over the window before, in dB."""

    def state(self) -> dict[str, int | float]:
        """The fields, with tensors read."""
        return vars(self) | {"squared_error": float(self.squared_error), "opacity": float(self.opacity)}

    def update(
        self,
        step: int,
        *,
        mse: Float[Tensor, ""],
        opacity: Float[Tensor, ""],
        total_steps: int,
        photo_variance: float,
    ) -> str | None:
        """Take in a step; at the end of a window say what is wrong, else None.

        Args:
            step: of the run.
            mse: mean squared error of the step's training rays, RGB in [0, 1].
            opacity: their mean accumulation, in [0, 1].
            total_steps: of the run.
            photo_variance: see `photo_variance`.
        """
        attempt_steps, window = step - self.first_step, max(MIN_WINDOW_STEPS, total_steps // WINDOWS_PER_RUN)
        if self.given_up or attempt_steps >= max(2 * window, total_steps * CHECKED_PART_OF_RUN):
            return None
        # Sums stay tensors until the window ends: reading them would make a GPU wait at every step.
        self.squared_error, self.opacity, self.steps = self.squared_error + mse, self.opacity + opacity, self.steps + 1
        if self.steps < window:
            return None
        psnr, seen = _psnr(float(self.squared_error) / window), float(self.opacity) / window
        self.squared_error, self.opacity, self.steps = 0.0, 0.0, 0
        one_colour, before, self.last_psnr = _psnr(photo_variance), self.last_psnr, psnr
        needed = max(one_colour + MIN_GAIN_DB, min(one_colour + CLEAR_GAIN_DB, before + MIN_PROGRESS_DB))
        if attempt_steps < window or psnr >= needed:
            return None
        state = "empty" if seen < 0.01 else "opaque" if seen > 0.99 else f"of opacity {seen:.2f}"
        return f"the scene is {state}; training rays have PSNR {psnr:.1f} dB, a single colour {one_colour:.1f} dB"

    def restart(self, step: int) -> None:
        """A new attempt starts at a step."""
        self.restarts += 1
        self.first_step = step


def _psnr(mse: float) -> float:
    return math.inf if mse <= 0 else -10 * math.log10(mse)
