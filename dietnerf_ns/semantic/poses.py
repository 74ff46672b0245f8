"""Where the poses of the semantic views come from: a sphere around the scene, or between the training cameras.

Pure functions of the training cameras and a `torch.Generator`. Poses are camera-to-world matrices [3, 4] with OpenGL
axes (the camera looks along its -z, +y is up); angles are in degrees, lengths in scene units.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dietnerf_ns.geometry.sphere import Range, Sphere, pose_at


def _uniform(interval: Range, generator: Generator) -> Tensor:
    low, high = interval
    return low + (high - low) * torch.rand((), generator=generator)


def pose_on_sphere(sphere: Sphere, generator: Generator) -> Float[Tensor, "3 4"]:
    """A camera at uniformly random azimuth, elevation and radius that looks at the centre."""
    azimuth = _uniform(sphere.azimuth_range, generator)
    elevation = _uniform(sphere.elevation_range, generator)
    radius = _uniform(sphere.radius_range, generator)
    return pose_at(sphere.center, sphere.up, azimuth=azimuth, elevation=elevation, radius=radius)


def interpolated_pose(camera_to_worlds: Float[Tensor, "n 3 4"], generator: Generator) -> Float[Tensor, "3 4"]:
    """A random convex combination of up to three training poses, for front-facing captures (paper, section 4.1).

    The weights are uniform on the simplex; the rotation is the chordal mean: the weighted sum of the rotation
    matrices, projected back to SO(3).
    """
    count = min(3, len(camera_to_worlds))
    chosen = camera_to_worlds[torch.randperm(len(camera_to_worlds), generator=generator)[:count]]
    weights = -torch.rand(count, generator=generator).clamp_min(1e-12).log()
    mean = (chosen * (weights / weights.sum())[:, None, None]).sum(0)
    left, _, right = torch.linalg.svd(mean[:, :3])
    handedness = torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(left @ right))]))
    return torch.cat([left @ handedness @ right, mean[:, 3:]], dim=-1)
