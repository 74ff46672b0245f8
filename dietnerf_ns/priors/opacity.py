"""A ray hits something or it does not: semi-transparent fog explains few photos well and other views badly."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

MARGIN = 1e-4
"""Opacity is kept this far from 0 and 1, where the entropy's gradient is infinite."""


def opacity_entropy(accumulation: Float[Tensor, "num_rays 1"]) -> Float[Tensor, ""]:
    """Mean binary entropy of the rays' opacity, in [0, log 2] nats.

    Args:
        accumulation: in [0, 1], one per ray.
    """
    a = accumulation.float().clamp(MARGIN, 1 - MARGIN)
    return -(a * a.log() + (1 - a) * (1 - a).log()).mean()
