"""nerfstudio's datamanagers on a few of the training views: one for rays, one for whole images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import (
    VanillaDataManager,
    VanillaDataManagerConfig,
    variable_res_collate,
)
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.pixel_samplers import PatchPixelSamplerConfig, PixelSampler, PixelSamplerConfig
from torch import Tensor

from dietnerf_ns.data.dataset import OPAQUE, AreaDownscaledDataset
from dietnerf_ns.data.few_shot import FLAGS, FewShotViews, FewShotViewsConfig
from dietnerf_ns.data.foreground import PhotoMasks, surely_background
from dietnerf_ns.data.pixel_samplers import (
    ForegroundPixelSampler,
    ForegroundPixelSamplerConfig,
    MaskedPixelSampler,
    PatchSampler,
    PatchSamplerConfig,
    SinglePhotoPixelSampler,
)
from dietnerf_ns.geometry.cameras import is_pinhole
from dietnerf_ns.utils.compat import replaced
from dietnerf_ns.utils.errors import SettingError, check_limits, flags_under


@dataclass
class FewShotDataManagerConfig(FewShotViewsConfig, VanillaDataManagerConfig):
    """Which few views are trained on, and which of their pixels."""

    _target: type = field(default_factory=lambda: FewShotDataManager)
    pixel_sampler: PixelSamplerConfig = field(default_factory=ForegroundPixelSamplerConfig)
    """Specifies the pixel sampler used to sample pixels from images."""


class FewShotDataManager(FewShotViews, VanillaDataManager[AreaDownscaledDataset]):
    """nerfstudio's ray datamanager on a few of the training views.

    Args:
        config: which views; everything else as in nerfstudio.

    Raises:
        UserError: data that cannot be read, or settings that cannot work.
    """

    config: FewShotDataManagerConfig
    train_dataset: AreaDownscaledDataset
    _background: PhotoMasks | None = None
    """Where the training photos show the background, once that is asked for."""

    def __init__(self, config: FewShotDataManagerConfig, **kwargs):
        limits = {
            "patch_size": (config.patch_size >= 1, "at least 1"),
            "train_num_rays_per_batch": (config.train_num_rays_per_batch >= 1, "at least 1"),
            "eval_num_rays_per_batch": (config.eval_num_rays_per_batch >= 1, "at least 1"),
        }
        with flags_under(FLAGS):
            check_limits(config, limits)
        super().__init__(config, **kwargs)

    def setup_eval(self) -> None:
        """nerfstudio's data loaders, also for evaluation photos of several sizes.

        nerfstudio looks at the sizes of the training photos only.
        """
        assert self.eval_dataset is not None
        cameras = self.eval_dataset.cameras
        sizes = torch.cat([cameras.width, cameras.height], dim=-1).unique(dim=0)
        collate = variable_res_collate if len(sizes) > 1 else self.config.collate_fn
        with replaced(self.config, "collate_fn", collate):
            super().setup_eval()

    @property
    def heeds_masks(self) -> bool:
        return not self.config.pixel_sampler.ignore_mask

    def _get_pixel_sampler(self, dataset: AreaDownscaledDataset, num_rays_per_batch: int) -> PixelSampler:
        settings = self.config.pixel_sampler
        is_own = isinstance(settings, PatchPixelSamplerConfig) and settings.patch_size == self.config.patch_size
        if self.config.patch_size > 1 and not is_own:
            return self._patch_sampler(dataset, num_rays_per_batch)
        target = MaskedPixelSampler if settings._target is PixelSampler else settings._target
        with flags_under(f"{FLAGS}pixel-sampler."), replaced(settings, "_target", target):
            sampler = super()._get_pixel_sampler(dataset, num_rays_per_batch)
        is_training = dataset is self.train_dataset
        if isinstance(sampler, ForegroundPixelSampler) and is_training and is_pinhole(dataset.cameras):
            sampler.set_foreground(self.capture.foreground_masks)
        return sampler

    def _patch_sampler(self, dataset: AreaDownscaledDataset, num_rays_per_batch: int) -> PatchSampler:
        side, sizes = self.config.patch_size, torch.cat([dataset.cameras.width, dataset.cameras.height], dim=-1)
        settings = self.config.pixel_sampler
        rays = "train_num_rays_per_batch" if dataset is self.train_dataset else "eval_num_rays_per_batch"
        with flags_under(FLAGS):
            if type(settings) is not PixelSamplerConfig and not isinstance(settings, ForegroundPixelSamplerConfig):
                raise SettingError("patch_size", side, "the method samples rays in its own way; set it to 1.")
            if num_rays_per_batch < side**2:
                reason = f"a patch needs {side**2} rays; set {FLAGS}{rays.replace('_', '-')} to that or more."
                raise SettingError("patch_size", side, reason)
            if len(dataset) > 0 and side > int(sizes.min()):
                raise SettingError("patch_size", side, f"must be at most {int(sizes.min())}, the photos' shorter side.")
            if len(sizes.unique(dim=0)) > 1:
                raise SettingError("patch_size", side, "needs photos of one size; leave it out.")
        patches = PatchSamplerConfig(patch_size=side, ignore_mask=settings.ignore_mask)
        return patches.setup(num_rays_per_batch=num_rays_per_batch)

    def begin_step(self, step: int) -> None:
        """Prepare the training batch of a step.

        Args:
            step: training steps since the present initialisation.
        """
        if isinstance(self.train_pixel_sampler, SinglePhotoPixelSampler):
            self.train_pixel_sampler.begin_step(step)

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """The rays of a step and what the photos show there.

        Args:
            step: counted by nerfstudio.

        Returns:
            A flat bundle, and nerfstudio's batch. After `mark_background`, and if the photos show an object in front of
            transparency or of one colour, it has `is_background`, [num_rays, 1], True where the photo surely shows the
            background.
        """
        rays, batch = super().next_train(step)
        if self._background is not None:
            batch["is_background"] = self._background.at(batch["indices"])
        return rays, batch

    def mark_background(self) -> None:
        """From now on training batches have `is_background`, if the photos have a background."""
        if self.capture.background is not None:
            self._background = PhotoMasks([self._background_of(photo) for photo in range(len(self.train_dataset))])

    def _background_of(self, photo: int) -> Bool[Tensor, "height width"]:
        image = torch.from_numpy(self.train_dataset.get_numpy_image(photo))
        alpha = image[..., 3:]
        if (alpha < OPAQUE).any():  # also where the dataparser puts the photos on a colour
            return alpha[..., 0] == 0
        if self.capture.is_transparent:  # what the model renders behind other photos is not what is behind this one
            return torch.zeros(image.shape[:2], dtype=torch.bool)
        assert self.capture.background is not None
        return surely_background(image.float() / 255, self.capture.background)


@dataclass
class FewShotImageDataManagerConfig(FewShotViewsConfig, FullImageDatamanagerConfig):
    """Which few views are trained on, an image at a step."""

    _target: type = field(default_factory=lambda: FewShotImageDataManager)


class FewShotImageDataManager(FewShotViews, FullImageDatamanager[AreaDownscaledDataset]):
    """nerfstudio's datamanager of whole images, for models that rasterise, on a few of the training views.

    Args:
        config: which views; everything else as in nerfstudio.

    Raises:
        UserError: data that cannot be read, or settings that cannot work.
    """

    config: FewShotImageDataManagerConfig
    train_dataset: AreaDownscaledDataset

    def _report_transparency(self) -> None:
        """Nothing: models that rasterise compose photos with a background of their own at each step."""
