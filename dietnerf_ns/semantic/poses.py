"""Where the poses of the semantic views come from: a sphere around the scene, or between the training cameras.

Pure functions of the training cameras and a `torch.Generator`. Poses are camera-to-world matrices [3, 4] with OpenGL
axes (the camera looks along its -z, +y is up); angles are in degrees, lengths in scene units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from dietnerf_ns.views import SURROUND_ANGLE_DEG, viewing_directions, widest_viewing_angle

Range = tuple[float, float]


@dataclass(frozen=True)
class Sphere:
    """A shell of camera positions around a point that all of them look at."""

    center: Float[Tensor, "3"]
    """World position that the cameras look at."""
    up: Float[Tensor, "3"]
    """Unit vector; elevation is measured against the plane perpendicular to it."""
    radius_range: Range
    """Distance to the centre."""
    elevation_range: Range
    """phi: degrees above the plane, -90 to 90. The paper's code counts it downwards: its [-90, 0] is [0, 90] here."""
    azimuth_range: Range = (-180.0, 180.0)
    """theta: degrees around `up`; with `up` = +z it starts at +x."""


def nearest_point_to_axes(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """The point with the least sum of squared distances to the cameras' optical axes."""
    directions, origins = viewing_directions(camera_to_worlds), camera_to_worlds[:, :3, 3]
    across = torch.eye(3).to(origins) - directions[:, :, None] * directions[:, None, :]  # n x 3 x 3
    return torch.linalg.lstsq(across.sum(0), (across @ origins[..., None]).sum(0), driver=None).solution[:, 0]


def up_vector(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """The scene's up: perpendicular to all cameras' right axes, for photos are rarely rolled.

    Where the right axes do not span a plane (one camera, or all side by side) the mean of the cameras' own up axes.
    """
    mean_up = normalize(camera_to_worlds[:, :3, 1].mean(0), dim=0)
    _, spread, axes = torch.linalg.svd(camera_to_worlds[:, :3, 0], full_matrices=True)
    if len(spread) < 2 or spread[1] < 0.1 * spread[0]:
        return mean_up
    return axes[2] if axes[2] @ mean_up >= 0 else -axes[2]


def fit_sphere(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Sphere:
    """The shell on which the training cameras lie, around the whole circle."""
    center, up = nearest_point_to_axes(camera_to_worlds), up_vector(camera_to_worlds)
    _, elevations, radii = spherical_coordinates(camera_to_worlds, center, up)
    return Sphere(
        center=center,
        up=up,
        radius_range=(float(radii.min()), float(radii.max())),
        elevation_range=(float(elevations.min()), float(elevations.max())),
    )


def cameras_surround_scene(camera_to_worlds: Float[Tensor, "n 3 4"]) -> bool:
    """Whether the cameras look at one thing from clearly different sides.

    True if some two viewing directions are at least 60 degrees apart and the point nearest to all optical axes lies
    in front of every camera. Front-facing captures fail the first test, captures that look outwards the second.
    """
    in_front = is_in_front(nearest_point_to_axes(camera_to_worlds), camera_to_worlds)
    return widest_viewing_angle(camera_to_worlds) >= SURROUND_ANGLE_DEG and in_front


def is_in_front(point: Float[Tensor, "3"], camera_to_worlds: Float[Tensor, "n 3 4"]) -> bool:
    """Whether no camera has the point beside or behind it."""
    to_point = point - camera_to_worlds[:, :3, 3]
    return bool(((to_point * viewing_directions(camera_to_worlds)).sum(-1) > 0).all())


def _uniform(interval: Range, generator: Generator) -> Tensor:
    low, high = interval
    return low + (high - low) * torch.rand((), generator=generator)


def pose_on_sphere(sphere: Sphere, generator: Generator) -> Float[Tensor, "3 4"]:
    """A camera at uniformly random azimuth, elevation and radius that looks at the centre."""
    azimuth = _uniform(sphere.azimuth_range, generator)
    elevation = _uniform(sphere.elevation_range, generator)
    radius = _uniform(sphere.radius_range, generator)
    return pose_at(sphere.center, sphere.up, azimuth=azimuth, elevation=elevation, radius=radius)


def pose_at(
    center: Float[Tensor, "3"],
    up: Float[Tensor, "3"],
    *,
    azimuth: Float[Tensor, ""],
    elevation: Float[Tensor, ""],
    radius: Float[Tensor, ""],
) -> Float[Tensor, "3 4"]:
    """The camera at this place around the centre that looks at it with the horizon level."""
    azimuth, elevation = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    first, second = horizontal_axes(up)
    horizontal = azimuth.cos() * first + azimuth.sin() * second
    sideways = azimuth.cos() * second - azimuth.sin() * first
    backward = elevation.cos() * horizontal + elevation.sin() * up
    upward = elevation.cos() * up - elevation.sin() * horizontal
    return torch.stack([sideways, upward, backward, center + radius * backward], dim=-1)


def spherical_coordinates(
    camera_to_worlds: Float[Tensor, "n 3 4"], center: Float[Tensor, "3"], up: Float[Tensor, "3"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Azimuth, elevation and radius of the cameras' positions, as `pose_at` takes them."""
    offsets = camera_to_worlds[:, :3, 3] - center
    first, second = horizontal_axes(up)
    azimuths = torch.rad2deg(torch.atan2(offsets @ second, offsets @ first))
    radii = offsets.norm(dim=-1)
    elevations = torch.rad2deg(torch.asin((offsets @ up / radii).clamp(-1, 1)))
    return azimuths, elevations, radii


def horizontal_axes(up: Float[Tensor, "3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Where azimuth 0 and 90 point: two unit vectors perpendicular to `up` and to each other."""
    reference = torch.tensor([1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])  # not parallel to up
    first = normalize(reference - (reference @ up) * up, dim=0)
    return first, torch.linalg.cross(up, first)


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
