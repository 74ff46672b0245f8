"""Random numbers that depend on the run's seed and the step alone, so that a resumed run goes on as it would have."""

from __future__ import annotations

import random

import numpy as np
import torch

OWN_STREAM = 0x9E3779B9


def step_seed(seed: int, step: int) -> int:
    """One number for a step of a run, below 2**32: torch's CPU generator looks at no higher bits."""
    return (seed * 1_000_003 + step) % 2**32


def seed_everything(seed: int, step: int) -> None:
    """Seed Python's, NumPy's and torch's global generators for a training step.

    A resumed run then draws the same pixels and samples as an uninterrupted one, and runs with and without the
    semantic loss see the same photometric batches.
    """
    number = step_seed(seed, step)
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def semantic_generator(seed: int, step: int) -> torch.Generator:
    """The generator of a step's semantic view, independent of the photometric batch of the same step."""
    return torch.Generator().manual_seed(step_seed(seed, step) ^ OWN_STREAM)
