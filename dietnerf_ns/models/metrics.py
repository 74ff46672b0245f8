"""Image metrics that never stop a run, and masks that restrict them.

PSNR and SSIM are always computed, LPIPS when its backbone can be loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class LazyLPIPS:
    """LPIPS as torchmetrics has it, loaded at the first evaluation.

    Its backbone is a download. If that fails the metric is NaN and `missing_because` says why. This is no module, so
    that the backbone stays out of checkpoints.

    Args:
        settings: of `LearnedPerceptualImagePatchSimilarity`. nerfstudio's methods give `normalize=True`, which is for
            images in [0, 1]; its surface models give none.
    """

    def __init__(self, **settings: Any):
        self._settings = settings
        self._network = None
        self.missing_because: str | None = None
        self.was_computed = False
        """Whether it has been computed for an image."""

    def __call__(self, target: Tensor, prediction: Tensor) -> Tensor:
        """LPIPS of two image batches [B, 3, H, W]; NaN if it cannot be computed."""
        if self.missing_because is None:
            try:
                distance = self._loaded(target.device)(target, prediction)
                self.was_computed = True
                return distance
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # no network, images too small for AlexNet: a metric is no reason to stop
                self.missing_because = str(error)
        return torch.tensor(float("nan"))

    def _loaded(self, device: torch.device):
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        if self._network is None:
            self._network = LearnedPerceptualImagePatchSimilarity(**self._settings).to(device)
        return self._network


def black_outside(
    mask: Bool[Tensor, "height width 1"], image: Float[Tensor, "height width 3"]
) -> Float[Tensor, "height width 3"]:
    """The image with black pixels where the mask is False.

    Args:
        mask: on any device.
        image: RGB in [0, 1].
    """
    return torch.where(mask.to(image.device), image, 0)


def psnr_inside(mask: Bool[Tensor, "height width 1"], metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics with PSNR over the pixels of a mask in place of PSNR over the whole image.

    Images that are both black outside the mask have no error there. Their mean squared error inside is therefore that
    of the whole images over the mask's share of the pixels.

    Args:
        mask: True where pixels count. Without any such pixel, PSNR is not defined and becomes NaN or minus infinity.
        metrics: of images that are black outside the mask. PSNR, in dB, has names that end in `psnr`.
    """
    share_db = 10 * float(mask.double().mean().log10())
    return {name: value + share_db if name.endswith("psnr") else value for name, value in metrics.items()}


def without_missing(metrics: dict[str, float], model: nn.Module) -> dict[str, float]:
    """The metrics without those that the model could not compute.

    One that failed after it was computed for an earlier image stays, as NaN: nerfstudio wants the same ones for all
    images. `without_means_of_missing` leaves it out of their means.
    """
    missing = tuple(name for name in missing_metrics(model) if not getattr(model, name).was_computed)
    return {name: value for name, value in metrics.items() if not name.endswith(missing)}


def without_means_of_missing(means: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Means over images, and their standard deviations, without those of metrics that failed for an image."""
    missing = tuple(name + suffix for name in missing_metrics(model) for suffix in ("", "_std"))
    return {name: value for name, value in means.items() if not name.endswith(missing)}


def missing_metrics(model: nn.Module) -> dict[str, str]:
    """Image metrics that a model could not compute, with the reason."""
    reason = getattr(getattr(model, "lpips", None), "missing_because", None)
    return {} if reason is None else {"lpips": reason}
