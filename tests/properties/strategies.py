"""Random vectors, rotations, spheres and cameras."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch.nn.functional import normalize

from dietnerf_ns.geometry.sphere import Sphere, pose_at

seeds = st.integers(0, 2**31 - 1)


def floats(low: float, high: float):
    return st.floats(low, high, allow_subnormal=False)


def generators():
    return seeds.map(lambda seed: torch.Generator().manual_seed(seed))


def vectors(low: float = -5.0, high: float = 5.0):
    return st.tuples(*[floats(low, high)] * 3).map(lambda v: torch.tensor(v, dtype=torch.float32))


def unit_vectors():
    return vectors(-1, 1).filter(lambda v: v.norm() > 0.1).map(lambda v: normalize(v, dim=0))


def rotations():
    """Proper rotation matrices, from quaternions."""
    return st.tuples(*[floats(-1, 1)] * 4).map(torch.tensor).filter(lambda q: q.norm() > 0.1).map(_rotation)


def _rotation(quaternion: torch.Tensor) -> torch.Tensor:
    w, x, y, z = normalize(quaternion.double(), dim=0).tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def ranges(low: float, high: float):
    return st.tuples(floats(low, high), floats(low, high)).map(lambda ends: (min(ends), max(ends)))


@st.composite
def spheres(draw):
    return Sphere(
        draw(vectors()),
        draw(unit_vectors()),
        radius_range=draw(ranges(0.5, 10)),
        elevation_range=draw(ranges(-85, 85)),
        azimuth_range=draw(ranges(-180, 180)),
    )


@st.composite
def looking_poses(draw, min_size: int = 2, max_size: int = 8):
    """Poses [n, 3, 4] that look at one point from anywhere, with a level horizon."""
    count = draw(st.integers(min_size, max_size))
    center, up = draw(vectors(-2, 2)), draw(unit_vectors())
    place = st.tuples(floats(-180, 180), floats(-80, 80), floats(1, 6))
    poses = []
    for azimuth, elevation, radius in draw(st.lists(place, min_size=count, max_size=count)):
        where = {"azimuth": azimuth, "elevation": elevation, "radius": radius}
        poses.append(pose_at(center, up, **{name: torch.tensor(value) for name, value in where.items()}))
    return torch.stack(poses)


def moved(poses: torch.Tensor, rotation: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Poses after a rigid motion of the world."""
    turned = rotation @ poses
    turned[:, :, 3] += offset
    return turned


def is_rotation(matrix: torch.Tensor) -> bool:
    """Whether the columns are orthonormal and right-handed."""
    orthonormal = torch.allclose(matrix.T @ matrix, torch.eye(3), atol=1e-4)
    return orthonormal and math.isclose(float(torch.linalg.det(matrix)), 1, abs_tol=1e-3)
