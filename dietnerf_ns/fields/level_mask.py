"""A layer between an encoding with several levels and the network behind it that enables levels gradually."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LevelMask(nn.Module):
    """Multiplies the features of each level with the level's weight.

    Args:
        num_levels: levels, side by side in the features, from coarse to fine; all have the same number of features.
    """

    weights: Float[Tensor, "num_levels"]
    """In [0, 1]; saved with the field, so that a run stopped half-way renders as it did."""

    def __init__(self, num_levels: int):
        super().__init__()
        self.register_buffer("weights", torch.ones(num_levels))

    def forward(self, features: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Weight the features of each level."""
        per_level = features.shape[-1] // len(self.weights)
        return features * self.weights.repeat_interleave(per_level).to(features)
