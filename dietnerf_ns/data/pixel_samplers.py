"""Which pixels a training step takes its rays from: more of the photographed thing, or as in the paper's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from torch import Tensor

from dietnerf_ns.utils.errors import check_limits

MARGIN = 0.02


@dataclass
class ForegroundPixelSamplerConfig(PixelSamplerConfig):
    """Most rays go through the thing in the photos, if they show it on one background."""

    _target: type = field(default_factory=lambda: ForegroundPixelSampler)
    subject_share: float = 0.9
    """Part of a step's rays that go through the thing in the photos or close by, if all photos are of one size and show
    it on one background, which is soon learned; the other rays go anywhere in the photos, as all do with 0."""


class ForegroundPixelSampler(PixelSampler):
    """Some of the rays through the subject and a margin around it, the rest uniform over all pixels.

    Without one background, and with photos of different sizes or of other than pinhole cameras, all rays are uniform.

    Args:
        config: see `ForegroundPixelSamplerConfig`.

    Raises:
        UserError: a share below 0 or above 1.
    """

    config: ForegroundPixelSamplerConfig
    subject: Bool[Tensor, "photos height width"] | None = None
    """The thing in each photo of the dataset and a margin around it."""

    def __init__(self, config: ForegroundPixelSamplerConfig, **kwargs):
        limits = {"subject_share": (0 <= config.subject_share <= 1, "at least 0 and at most 1")}
        check_limits(config, limits, prefix="pipeline.datamanager.pixel-sampler.")
        super().__init__(config, **kwargs)
        self._photos: Tensor | None = None

    def set_foreground(self, things: Sequence[Bool[Tensor, "height width"]]) -> None:
        """Learn where the photos of the dataset show the thing; the margin is 2 % of a photo's shorter side."""
        if len({thing.shape for thing in things}) != 1 or self.config.subject_share == 0:
            return
        width = 2 * round(MARGIN * min(things[0].shape)) + 1
        kernel = np.ones((width, width), dtype=np.uint8)
        self.subject = torch.stack(
            [torch.from_numpy(cv2.dilate(thing.byte().numpy(), kernel)).bool() for thing in things]
        )

    def pixel_probabilities(self, num_pixels: int) -> Float[Tensor, "num_pixels"]:
        """How probable it is that a ray goes through a pixel, photo after photo, row after row; masks left aside."""
        if self.subject is None or not self.subject.any():
            return torch.full((num_pixels,), 1 / num_pixels)
        share, subject = self.config.subject_share, self.subject.flatten()
        return (1 - share) / num_pixels + share * subject / subject.sum()

    def collate_image_dataset_batch(self, batch: dict, num_rays_per_batch: int, keep_full_image: bool = False) -> dict:
        """The pixels of a step; the subject's are listed when the photos are new."""
        if self.subject is not None and self._photos is not batch["image"]:
            subject = self.subject[batch["image_idx"].cpu()]
            if "mask" in batch and not self.config.ignore_mask:
                subject = subject & batch["mask"][..., 0].bool().cpu()
            self._photos, self._subject_pixels = batch["image"], subject.nonzero().to(batch["image"].device)
        return super().collate_image_dataset_batch(batch, num_rays_per_batch, keep_full_image)

    def sample_method(self, batch_size: int, *size: int, **settings) -> Int[Tensor, "batch_size 3"]:
        """Photo, row and column of each ray, those through the subject first; arguments as nerfstudio's."""
        indices = super().sample_method(batch_size, *size, **settings)
        if self._photos is not None and len(self._subject_pixels) > 0:
            count = round(self.config.subject_share * batch_size)
            chosen = torch.randint(len(self._subject_pixels), (count,), device=self._subject_pixels.device)
            indices[:count] = self._subject_pixels[chosen]
        return indices


@dataclass
class SinglePhotoPixelSamplerConfig(PixelSamplerConfig):
    """Rays of a single photo per step, at first from its centre."""

    _target: type = field(default_factory=lambda: SinglePhotoPixelSampler)
    centre_steps: int = 500
    """So many first steps take rays from the photos' centre only, where NeRF-Synthetic has its objects: without that
    some runs stay empty."""
    centre_fraction: float = 0.5
    """Side of the centre as a fraction of the photo's."""


class SinglePhotoPixelSampler(PixelSampler):
    """Uniform over the pixels of one photo, another one at every step (NeRF's code: `no_batching`, `precrop_iters`).

    Args:
        config: see `SinglePhotoPixelSamplerConfig`.

    Raises:
        UserError: a centre without pixels or larger than the photo.
    """

    config: SinglePhotoPixelSamplerConfig
    step: int | None = None
    """Training steps since the initialisation; None outside of training, where whole photos count."""

    def __init__(self, config: SinglePhotoPixelSamplerConfig, **kwargs):
        limits = {"centre_fraction": (0 < config.centre_fraction <= 1, "above 0 and at most 1")}
        check_limits(config, limits, prefix="pipeline.datamanager.pixel-sampler.")
        super().__init__(config, **kwargs)

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
