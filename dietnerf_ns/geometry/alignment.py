"""How far two sets of poses of the same photos differ, whatever world frame each has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

Poses = Mapping[str, Float[np.ndarray, "3 4"]]
"""Camera-to-world matrices by the name of the photo."""


def cameras_extent(poses: Iterable[Float[np.ndarray, "3 4"]]) -> float:
    """Largest distance of a camera from the mean position of all, in the units of the world."""
    positions = np.stack([pose[:, 3] for pose in poses])
    return float(np.linalg.norm(positions - positions.mean(axis=0), axis=1).max())


def pose_errors(found: Poses, known: Poses) -> tuple[float, float]:
    """Largest errors of poses after alignment by a rotation (of all rotations), a scale and a translation.

    Args:
        found: of at least two photos, at different positions.
        known: of at least the same photos, with the same camera axes.

    Returns:
        Of the rotations in degrees, and of the positions in the units of `known`.
    """
    names = sorted(found)
    relative = Rotation.from_matrix(np.stack([known[name][:, :3] @ found[name][:, :3].T for name in names]))
    rotation = relative.mean()
    turned = rotation.apply(np.stack([found[name][:, 3] for name in names]))
    targets = np.stack([known[name][:, 3] for name in names])
    turned, targets = turned - turned.mean(axis=0), targets - targets.mean(axis=0)
    scaled = (turned * targets).sum() / (turned**2).sum() * turned
    angles = np.degrees((rotation.inv() * relative).magnitude())
    return float(angles.max()), float(np.linalg.norm(scaled - targets, axis=1).max())
