"""Coarse to fine: a field learns the scene's shape before finer levels of features can overfit the photos."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def level_weights(progress: float, num_levels: int) -> Float[Tensor, "num_levels"]:
    """Weight of each level's features: the coarsest level is always enabled, the others follow one after the other.

    The linear schedule of FreeNeRF (Yang et al., CVPR 2023, arXiv 2303.07418) with levels in place of frequencies.

    Args:
        progress: 0 at the start of the schedule; at 1 the last level is fully enabled.
        num_levels: number of levels, from coarse to fine.

    Returns:
        Weights in [0, 1].
    """
    return (progress * (num_levels - 1) + 1 - torch.arange(num_levels, dtype=torch.float32)).clamp(0, 1)
