"""Which pixels a training step takes its rays from: mostly the foreground, or a single photo as in the paper's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Int
from nerfstudio.data.pixel_samplers import PatchPixelSampler, PatchPixelSamplerConfig, PixelSampler, PixelSamplerConfig
from torch import Tensor
from torch.nn.functional import max_pool2d

from dietnerf_ns.utils.errors import UserError, check_limits

FOREGROUND_MARGIN = 0.02
"""Width of the margin around the foreground, relative to a photo's shorter side."""
CENTRE_FRACTION = 0.5
"""Side of the photos' centre relative to the whole, for the first steps of `SinglePhotoPixelSampler`; as NeRF's code
(`precrop_frac`)."""
CANDIDATES_PER_RAY = 4
"""Pixels that are drawn at once for each ray inside a mask. Enough if more than about a quarter is inside; otherwise
the pixels inside are listed."""


class MaskedPixelSampler(PixelSampler):
    """nerfstudio's sampler, which fails on a batch of one photo, on small masks and on some photos of several sizes."""

    def collate_image_dataset_batch_list(self, batch: dict, num_rays_per_batch: int, keep_full_image: bool = False):
        """Rays of photos of several sizes, as many of each photo.

        nerfstudio's method fails for odd numbers and for photos whose mask is black everywhere: there is one ray less,
        and such photos get none.

        Args:
            batch: `image`, and for some data `mask`, lists of [height, width, channels]; `image_idx`, [photos].
            num_rays_per_batch: at least 1.
            keep_full_image: whether the photos are returned as well.
        """
        if "mask" in batch and not self.config.ignore_mask:
            counts = [i for i, mask in enumerate(batch["mask"]) if mask.any()]
            batch = {key: _picked(values, counts) for key, values in batch.items()}
        even = max(2, num_rays_per_batch - num_rays_per_batch % 2)
        return super().collate_image_dataset_batch_list(batch, even, keep_full_image)

    def rejection_sample_mask(
        self,
        mask: Tensor,
        num_samples: int,
        num_images: int,
        image_height: int,
        image_width: int,
        device: torch.device | str = "cpu",
    ) -> Int[Tensor, "num_samples 3"]:
        """Photo, row and column of each ray, uniform over the pixels inside the masks; the arguments are nerfstudio's.

        They are drawn where the masks are, which may be another device than the photos'.

        Raises:
            UserError: no pixel is inside.
        """
        size = torch.tensor([num_images, image_height, image_width], device=mask.device)
        candidates = (torch.rand(CANDIDATES_PER_RAY * num_samples, 3, device=mask.device) * size).long()
        photos, rows, columns = candidates.unbind(dim=-1)
        inside = candidates[mask[photos, rows, columns, 0].bool()]
        if len(inside) >= num_samples:
            return inside[:num_samples].to(device)
        inside = mask[..., 0].nonzero()
        if len(inside) == 0:
            raise UserError("The masks leave no pixel: they are black everywhere. White marks what counts.")
        return inside[torch.randint(len(inside), (num_samples,), device=mask.device)].to(device)


def _picked(values: Tensor | list[Tensor], indices: list[int]) -> Tensor | list[Tensor]:
    return values[indices] if isinstance(values, Tensor) else [values[index] for index in indices]


@dataclass
class PatchSamplerConfig(PatchPixelSamplerConfig):
    """Square patches of photos, uniform over all places."""

    _target: type = field(default_factory=lambda: PatchSampler)


class PatchSampler(PatchPixelSampler, MaskedPixelSampler):
    """nerfstudio's sampler of patches, uniform over all places: for masks of any size and for a single photo."""

    def sample_method(
        self,
        batch_size: int,
        num_images: int,
        image_height: int,
        image_width: int,
        mask: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Int[Tensor, "num_rays 3"]:
        """Photo, row and column of each ray, patch by patch; the arguments are nerfstudio's.

        Raises:
            UserError: no patch fits into the masks.
        """
        side = self.config.patch_size
        count, rows, columns = batch_size // side**2, image_height - side + 1, image_width - side + 1
        if mask is None or self.config.ignore_mask:
            inside = torch.ones(1, 1, 1, 1, device=device).expand(num_images, rows, columns, 1)
        else:
            inside = -max_pool2d(-mask.permute(0, 3, 1, 2).float(), side, stride=1).permute(0, 2, 3, 1)
            if not inside.any():
                raise UserError(f"--pipeline.datamanager.patch-size {side}: no patch of this size fits into the masks.")
        corners = self.rejection_sample_mask(inside, count, num_images, rows, columns, device)
        along = torch.arange(side, device=device)
        within = torch.cartesian_prod(along[:1], along, along)
        return (corners[:, None] + within).flatten(0, 1)


@dataclass
class ForegroundPixelSamplerConfig(PixelSamplerConfig):
    """Most rays pass through the foreground if the photos have a uniform background."""

    _target: type = field(default_factory=lambda: ForegroundPixelSampler)
    subject_share: float = 0.9
    """Part of a step's rays that pass through the foreground of the photos or its margin, if all photos have one size
    and one uniform background, which is learned quickly. The other rays are uniform over the photos; 0 makes all rays
    uniform."""


class ForegroundPixelSampler(MaskedPixelSampler):
    """Some rays through the foreground and its margin, the rest uniform over all pixels.

    Without foreground masks, and for photos of different sizes, all rays are uniform.

    Args:
        config: see `ForegroundPixelSamplerConfig`.

    Raises:
        SettingError: a share below 0 or above 1.
    """

    config: ForegroundPixelSamplerConfig

    def __init__(self, config: ForegroundPixelSamplerConfig, **kwargs):
        check_limits(config, {"subject_share": (0 <= config.subject_share <= 1, "at least 0 and at most 1")})
        super().__init__(config, **kwargs)
        self._masks: Sequence[Bool[Tensor, "_height _width"]] = ()
        self._photos: Tensor | None = None
        self._foreground_pixels = torch.empty(0, dtype=torch.int32)

    def set_foreground(self, masks: Sequence[Bool[Tensor, "_height _width"]]) -> None:
        """Set the foreground of the dataset's photos, to which a margin is added.

        Args:
            masks: one for each photo; not copied.
        """
        if len({mask.shape for mask in masks}) == 1 and self.config.subject_share > 0:
            self._masks = masks

    @property
    def foreground_share(self) -> float:
        """Part of the rays that pass through `foreground` if any of it is inside the dataset's masks."""
        return self.config.subject_share if len(self._masks) > 0 else 0.0

    def foreground(self, photo: int) -> Bool[Tensor, "height width"]:
        """The foreground of a photo with its margin.

        Args:
            photo: index of a photo whose mask has been set.
        """
        mask = self._masks[photo]
        width = 2 * round(FOREGROUND_MARGIN * min(mask.shape)) + 1
        kernel = np.ones((width, width), dtype=np.uint8)
        return torch.from_numpy(cv2.dilate(mask.byte().numpy(), kernel)).bool()

    def collate_image_dataset_batch(self, batch: dict, num_rays_per_batch: int, keep_full_image: bool = False) -> dict:
        """The pixels of a step; the foreground pixels are listed again when the batch has new photos."""
        if len(self._masks) > 0 and self._photos is not batch["image"]:
            self._photos = batch["image"]
            self._foreground_pixels = self._list_foreground(batch).to(batch["image"].device)
        return super().collate_image_dataset_batch(batch, num_rays_per_batch, keep_full_image)

    def _list_foreground(self, batch: dict) -> Int[Tensor, "n"]:
        """Flat indices of the batch's foreground pixels, in a small type because there may be hundreds of millions."""
        masked = "mask" in batch and not self.config.ignore_mask
        kind = torch.int32 if batch["image"].shape[:3].numel() < 2**31 else torch.int64
        indices = []
        for i, photo in enumerate(batch["image_idx"].tolist()):
            foreground = self.foreground(photo)
            if masked:
                foreground = foreground & batch["mask"][i, ..., 0].bool().cpu()
            indices.append((foreground.flatten().nonzero()[:, 0] + i * foreground.numel()).to(kind))
        return torch.cat(indices)

    def sample_method(
        self,
        batch_size: int,
        num_images: int,
        image_height: int,
        image_width: int,
        mask: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Int[Tensor, "batch_size 3"]:
        """Photo, row and column of each ray, foreground rays first; the arguments are nerfstudio's."""
        indices = super().sample_method(batch_size, num_images, image_height, image_width, mask=mask, device=device)
        if self._photos is not None and len(self._foreground_pixels) > 0:
            count = round(self.config.subject_share * batch_size)
            chosen = torch.randint(len(self._foreground_pixels), (count,), device=self._foreground_pixels.device)
            pixels = self._foreground_pixels[chosen].long()
            rows = pixels // image_width
            indices[:count] = torch.stack([rows // image_height, rows % image_height, pixels % image_width], dim=-1)
        return indices


@dataclass
class SinglePhotoPixelSamplerConfig(PixelSamplerConfig):
    """All rays of a step pass through one photo, in the first steps through its centre."""

    _target: type = field(default_factory=lambda: SinglePhotoPixelSampler)
    centre_steps: int = 500
    """Number of first steps whose rays pass through the middle half of the photos, where NeRF-Synthetic scenes have
    their objects; without this some runs stay empty."""


class SinglePhotoPixelSampler(MaskedPixelSampler):
    """Uniform over the pixels of one photo, another one at every step (NeRF's code: `no_batching`, `precrop_iters`).

    Photos with masks, and photos of several sizes, are sampled together.

    Args:
        config: see `SinglePhotoPixelSamplerConfig`.
    """

    config: SinglePhotoPixelSamplerConfig
    _step: int | None = None

    def begin_step(self, step: int) -> None:
        """Tell the sampler how far training is; until this is called, rays are uniform over whole photos.

        Args:
            step: training steps since the present initialisation.
        """
        self._step = step

    def sample_method(
        self,
        batch_size: int,
        num_images: int,
        image_height: int,
        image_width: int,
        mask: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Int[Tensor, "batch_size 3"]:
        """Photo, row and column of each ray; photos with masks are sampled together, as nerfstudio does."""
        if mask is not None:
            return super().sample_method(batch_size, num_images, image_height, image_width, mask=mask, device=device)
        indices = super().sample_method(batch_size, 1, image_height, image_width, device=device)
        if self._step is not None and self._step < self.config.centre_steps:
            size = torch.tensor([image_height, image_width], device=indices.device)
            start = size * (1 - CENTRE_FRACTION) / 2
            indices[:, 1:] = (start + indices[:, 1:] * CENTRE_FRACTION).long()
        indices[:, 0] = torch.randint(num_images, (), device=indices.device)
        return indices
