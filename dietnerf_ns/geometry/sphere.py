"""A sphere of camera positions around a scene: fitting it to the training cameras, and poses on it.

Poses are camera-to-world matrices [3, 4] with OpenGL axes (the camera looks along its -z, +y is up); angles are in
degrees, lengths in scene units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from dietnerf_ns.geometry.cameras import nearest_point_to_axes, up_vector

Range = tuple[float, float]

ALL_AZIMUTHS: Range = (-180.0, 180.0)
WIDEST_GAP_DEG = 120.0
"""Gap between neighbouring azimuths that leaves the circle covered."""


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
    azimuth_range: Range = ALL_AZIMUTHS
    """theta: degrees around `up`; with `up` = +z it starts at +x."""


def fit_sphere(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Sphere:
    """The part of a shell that the training cameras cover: their ranges of radius, elevation and azimuth.

    See `covered_azimuths` for the latter.
    """
    center, up = nearest_point_to_axes(camera_to_worlds), up_vector(camera_to_worlds)
    azimuths, elevations, radii = spherical_coordinates(camera_to_worlds, center, up)
    return Sphere(
        center=center,
        up=up,
        radius_range=(float(radii.min()), float(radii.max())),
        elevation_range=(float(elevations.min()), float(elevations.max())),
        azimuth_range=covered_azimuths(azimuths),
    )


def covered_azimuths(azimuths: Float[Tensor, "n"]) -> Range:
    """The arc that cameras cover, in degrees, or `ALL_AZIMUTHS`.

    Cameras cover the whole circle if no gap between neighbours is above both 120 degrees and twice the mean of the
    other gaps. Otherwise they cover all but the widest gap.

    Args:
        azimuths: in degrees.
    """
    ordered = azimuths.sort().values
    gaps = torch.cat([ordered, ordered[:1] + 360]).diff()
    widest = int(gaps.argmax())
    rest = 360 - float(gaps[widest])
    if gaps[widest] <= max(WIDEST_GAP_DEG, 2 * rest / max(1, len(azimuths) - 1)):
        return ALL_AZIMUTHS
    start = float(ordered[(widest + 1) % len(azimuths)])
    return start, start + rest


def pose_at(
    center: Float[Tensor, "3"],
    up: Float[Tensor, "3"],
    *,
    azimuth: Float[Tensor, ""],
    elevation: Float[Tensor, ""],
    radius: Float[Tensor, ""],
) -> Float[Tensor, "3 4"]:
    """A camera that looks at the centre with a level horizon.

    Args:
        center: world position that the camera looks at.
        up: unit vector; azimuth turns around it.
        azimuth: theta in degrees.
        elevation: phi in degrees above the plane perpendicular to `up`.
        radius: distance to the centre in scene units.
    """
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
    """Unit vectors at azimuth 0 and 90 degrees, perpendicular to `up` and to each other."""
    reference = torch.tensor([1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])  # not parallel to up
    first = normalize(reference - (reference @ up) * up, dim=0)
    return first, torch.linalg.cross(up, first)
