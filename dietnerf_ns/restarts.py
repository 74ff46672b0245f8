"""Notices early that training has collapsed, so that it can start again. Knows nothing of trainers or models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from dietnerf_ns.semantic.consistency import Blend

CHECKED_PART_OF_RUN = 1 / 3
WINDOWS_PER_RUN = 40
MIN_WINDOW_STEPS = 50
MIN_GAIN_DB = 0.5


def photo_variance(dataset: InputDataset, blend: Blend) -> float:
    """Mean squared distance per channel of all photos' pixels from their mean colour, RGB in [0, 1].

    Args:
        dataset: the training views.
        blend: puts an RGBA photo on the background that the model renders; leaves RGB as it is.
    """
    images = (blend(dataset.get_image_float32(index)) for index in range(len(dataset)))
    return float(torch.cat([image.reshape(-1, 3) for image in images]).var(dim=0, correction=0).mean())


@dataclass
class CollapseDetector:
    """Watches the first third of a run in windows of a fortieth of it, at least 50 steps each.

    A collapsed field shows one colour everywhere: opacity is 0 or 1 on all rays and no gradient brings it back. The
    best that one colour can do is the photos' mean colour, whose squared error is their variance. Training has
    collapsed when, over a whole window after the first, the training rays are not 0.5 dB better than that.
    """

    total_steps: int
    """Of the run."""
    photo_variance: float
    """See `photo_variance`."""
    first_step: int = 0
    """Where this attempt started."""
    watching: bool = True
    """Off when no restart is left."""

    def __post_init__(self):
        self._start_window()

    @property
    def window(self) -> int:
        """Steps per window."""
        return max(MIN_WINDOW_STEPS, self.total_steps // WINDOWS_PER_RUN)

    def update(self, step: int, *, mse: Float[Tensor, ""], opacity: Float[Tensor, ""]) -> str | None:
        """Take in a step; at the end of a window say what is wrong, else None.

        Args:
            step: of the run.
            mse: mean squared error of the step's training rays, RGB in [0, 1].
            opacity: their mean accumulation, in [0, 1].
        """
        attempt_steps = step - self.first_step
        if not self.watching or attempt_steps >= max(2 * self.window, self.total_steps * CHECKED_PART_OF_RUN):
            return None
        self._mse, self._opacity, self._steps = self._mse + mse, self._opacity + opacity, self._steps + 1
        if self._steps < self.window:
            return None
        psnr, opacity = _psnr(float(self._mse) / self._steps), float(self._opacity) / self._steps
        self._start_window()
        one_colour = _psnr(self.photo_variance)
        if attempt_steps < self.window or psnr >= one_colour + MIN_GAIN_DB:
            return None
        state = "empty" if opacity < 0.01 else "opaque" if opacity > 0.99 else f"of opacity {opacity:.2f}"
        return f"the scene is {state}; training rays have PSNR {psnr:.1f} dB, a single colour {one_colour:.1f} dB"

    def _start_window(self) -> None:
        self._mse, self._opacity, self._steps = 0.0, 0.0, 0


def _psnr(mse: float) -> float:
    return math.inf if mse <= 0 else -10 * math.log10(mse)
