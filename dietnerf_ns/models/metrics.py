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

    def __call__(self, target: Tensor, prediction: Tensor) -> Tensor:
        """LPIPS of two image batches [B, 3, H, W]; NaN if it cannot be computed."""
        if self.missing_because is None:
            try:
                return self._loaded(target.device)(target, prediction)
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
    """The metrics without those that the model could not compute."""
    missing = tuple(missing_metrics(model))
    return {name: value for name, value in metrics.items() if not name.endswith(missing)}


def missing_metrics(model: nn.Module) -> dict[str, str]:
    """Image metrics that a model could not compute, with the reason."""
    reason = getattr(getattr(model, "lpips", None), "missing_because", None)
    return {} if reason is None else {"lpips": reason}
