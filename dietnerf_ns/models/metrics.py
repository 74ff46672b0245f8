"""Image metrics that never stop a run: PSNR and SSIM always, LPIPS when its backbone can be loaded."""

from __future__ import annotations

import torch
from torch import Tensor


class LazyLPIPS:
    """LPIPS (AlexNet, `normalize=True`, as nerfstudio computes it), loaded at the first evaluation.

    Its backbone is a download. Where that fails the metric is NaN and `missing_because` says why. It is no module, so
    the backbone stays out of checkpoints.
    """

    def __init__(self, normalize: bool = True):
        self._normalize = normalize
        self._network = None
        self.missing_because: str | None = None

    def __call__(self, target: Tensor, prediction: Tensor) -> Tensor:
        """LPIPS of two image batches [B, 3, H, W] with RGB in [0, 1]; NaN if it cannot be computed."""
        if self._network is None and self.missing_because is None:
            self._load(target.device)
        if self._network is None:
            return torch.tensor(float("nan"))
        return self._network(target, prediction)

    def _load(self, device: torch.device) -> None:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            self._network = LearnedPerceptualImagePatchSimilarity(normalize=self._normalize).to(device)
        except Exception as error:  # a download can fail in many ways; a metric is no reason to stop
            self.missing_because = f"its AlexNet backbone cannot be loaded: {error}"


def without_missing(metrics: dict[str, float], lpips: LazyLPIPS) -> dict[str, float]:
    """The metrics without LPIPS values if LPIPS could not be computed."""
    if lpips.missing_because is None:
        return metrics
    return {name: value for name, value in metrics.items() if not name.endswith("lpips")}


def left_out(lpips: LazyLPIPS) -> dict[str, str]:
    """Metrics that were left out, with the reason."""
    return {} if lpips.missing_because is None else {"lpips": lpips.missing_because}
