"""Image metrics that never stop a run: PSNR and SSIM always, LPIPS when its backbone can be loaded."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LazyLPIPS:
    """LPIPS (AlexNet, `normalize=True`, as nerfstudio computes it), loaded at the first evaluation.

    Its backbone is a download. If that fails the metric is NaN and `missing_because` says why. This is no module, so
    that the backbone stays out of checkpoints.
    """

    def __init__(self, normalize: bool = True):
        self._normalize = normalize
        self._network = None
        self.missing_because: str | None = None

    def __call__(self, target: Tensor, prediction: Tensor) -> Tensor:
        """LPIPS of two image batches [B, 3, H, W] with RGB in [0, 1]; NaN if it cannot be computed."""
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
            self._network = LearnedPerceptualImagePatchSimilarity(normalize=self._normalize).to(device)
        return self._network


def without_missing(metrics: dict[str, float], lpips: LazyLPIPS) -> dict[str, float]:
    """The metrics without LPIPS values if LPIPS could not be computed."""
    if lpips.missing_because is None:
        return metrics
    return {name: value for name, value in metrics.items() if not name.endswith("lpips")}


def missing_metrics(model: nn.Module) -> dict[str, str]:
    """Image metrics that a model could not compute, with the reason."""
    reason = getattr(getattr(model, "lpips", None), "missing_because", None)
    return {} if reason is None else {"lpips": reason}
