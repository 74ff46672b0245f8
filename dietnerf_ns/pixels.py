"""Which pixels a training step takes its rays from, as in the paper's code."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from torch import Tensor


@dataclass
class OnePhotoPixelSamplerConfig(PixelSamplerConfig):
    """Rays of a single photo per step, at first from its centre."""

    _target: type = field(default_factory=lambda: OnePhotoPixelSampler)
    centre_steps: int = 500
    """So many first steps take rays from the photos' centre only, where NeRF-Synthetic has its objects: without that
    some runs stay empty."""
    centre_fraction: float = 0.5
    """Side of the centre as a fraction of the photo's."""


class OnePhotoPixelSampler(PixelSampler):
    """Uniform over the pixels of one photo, another one at every step (NeRF's code: `no_batching`, `precrop_iters`).

    Args:
        config: see `OnePhotoPixelSamplerConfig`.
    """

    config: OnePhotoPixelSamplerConfig
    step: int | None = None
    """Training steps since the initialisation; None outside of training, where whole photos count."""

    def sample_method(
        self,
        batch_size: int,
        num_images: int,
        image_height: int,
        image_width: int,
        mask: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Int[Tensor, "batch_size 3"]:
        """Photo, row and column of each ray; photos with masks are sampled as nerfstudio does, all together."""
        if mask is not None:
            return super().sample_method(batch_size, num_images, image_height, image_width, mask=mask, device=device)
        indices = super().sample_method(batch_size, 1, image_height, image_width, device=device)
        if self.step is not None and self.step < self.config.centre_steps:
            size = torch.tensor([image_height, image_width], device=indices.device)
            start = size * (1 - self.config.centre_fraction) / 2
            indices[:, 1:] = (start + indices[:, 1:] * self.config.centre_fraction).long()
        indices[:, 0] = torch.randint(num_images, (), device=indices.device)
        return indices
