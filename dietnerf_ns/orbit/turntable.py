"""The cameras of a turntable, which circle the scene once or move back and forth in front of it. Pure functions.

theta is the azimuth and phi the elevation, both in degrees. Lengths are in scene units, and poses are camera-to-world
matrices [3, 4] with OpenGL axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from dietnerf_ns.geometry.cameras import (
    SURROUND_ANGLE_DEG,
    is_in_front,
    looking_at_one_place,
    viewing_directions,
    widest_viewing_angle,
)
from dietnerf_ns.geometry.sphere import (
    ALL_AZIMUTHS,
    Range,
    Sphere,
    covered_azimuths,
    fit_sphere,
    pose_at,
    spherical_coordinates,
)
from dietnerf_ns.utils.errors import UserError

FULL_CIRCLE = (0.0, 360.0)
LONGEST_DEFAULT_SIDE_PX = 1000


def fit_turntable(
    camera_to_worlds: Float[Tensor, "n 3 4"],
    *,
    theta_range: Range | None = None,
    phi: float | None = None,
    radius: float | None = None,
    there_and_back: bool = True,
    depth: Callable[[], float],
) -> Sphere:
    """Choose the circle, arc or ellipse that a turntable follows.

    The default for photos from one side, with azimuths within 60 degrees, is an ellipse over the azimuths and the
    elevations of the cameras.

    Args:
        camera_to_worlds: poses of the training cameras. A few that look elsewhere than the others do not count.
        theta_range: first and last azimuth. None takes those that the cameras cover: the full circle, or an arc.
        phi: elevation. None takes the mean of the cameras' elevations, or all of them for an ellipse.
        radius: distance to the centre. None takes the mean of the cameras' distances.
        there_and_back: whether the camera returns over an arc. One that does not keeps its elevation.
        depth: distance from the cameras to what they see, in scene units. It is asked for if the cameras look along
            parallel or diverging lines, so that they have no centre, and `radius` is None.

    Returns:
        A sphere with a single radius, and a single elevation but for an ellipse.

    Raises:
        UserError: the cameras look apart, so that there is no centre; or they all have the same azimuth, so that they
            span no arc.
    """
    camera_to_worlds = looking_at_one_place(camera_to_worlds)
    sphere = fit_sphere(camera_to_worlds)
    if not is_in_front(sphere.center, camera_to_worlds):
        sphere = replace(sphere, center=_point_ahead(camera_to_worlds, radius, depth))
    azimuths, elevations, radii = spherical_coordinates(camera_to_worlds, sphere.center, sphere.up)
    radius = float(radii.mean()) if radius is None else radius
    phi_range = (float(elevations.mean()),) * 2 if phi is None else (phi, phi)
    if theta_range is None:
        theta_range = _arc_of(azimuths)
        if phi is None and there_and_back and theta_range[1] - theta_range[0] < SURROUND_ANGLE_DEG:
            phi_range = float(elevations.min()), float(elevations.max())
    return replace(sphere, azimuth_range=theta_range, elevation_range=phi_range, radius_range=(radius, radius))


def _point_ahead(
    camera_to_worlds: Float[Tensor, "n 3 4"], distance: float | None, depth: Callable[[], float]
) -> Float[Tensor, "3"]:
    if widest_viewing_angle(camera_to_worlds) >= SURROUND_ANGLE_DEG:
        raise UserError(
            "The training cameras look apart, not at a common centre: there is nothing to turn around. "
            "ns-render interpolate moves between them instead."
        )
    direction = viewing_directions(camera_to_worlds).mean(0)
    ahead = depth() if distance is None else distance
    return camera_to_worlds[:, :3, 3].mean(0) + ahead * direction / direction.norm()


def _arc_of(azimuths: Float[Tensor, "n"]) -> Range:
    arc = covered_azimuths(azimuths)
    if arc == ALL_AZIMUTHS:
        return FULL_CIRCLE
    if arc[1] - arc[0] < 0.01:
        raise UserError("All training cameras have the same azimuth: give --theta-range START END in degrees.")
    return arc


def is_full_circle(theta_range: Range) -> bool:
    """Whether the range ends where it starts, after one or more full turns."""
    start, end = theta_range
    return start != end and (end - start) % 360 == 0


def turntable_azimuths(theta_range: Range, frames: int, *, there_and_back: bool = True) -> Float[Tensor, "frames"]:
    """The azimuth of every frame in degrees.

    A full circle has equal steps and ends one step before its start, so that the video loops evenly. An arc that goes
    there and back follows

        theta = start + (end - start) (1 - cos(2 pi i / frames)) / 2

    for i = 0, 1, ... with an even number of frames and i = 1/4, 5/4, ... with an odd number. It loops as well. An arc
    that is swept once has equal steps from the first azimuth to the last.

    Args:
        theta_range: first and last azimuth in degrees.
        frames: number of frames.
        there_and_back: whether an arc returns to its start. A full circle is not affected.
    """
    start, end = theta_range
    if is_full_circle(theta_range):
        fraction = torch.arange(frames) / frames
    elif there_and_back:
        fraction = (1 - torch.cos(2 * torch.pi * _phases(frames))) / 2
    else:
        fraction = torch.linspace(0, 1, frames)
    return start + (end - start) * fraction


def turntable_elevations(phi_range: Range, frames: int) -> Float[Tensor, "frames"]:
    """The elevation of every frame in degrees: with the azimuths of an arc there and back, an ellipse.

        phi = middle + (highest - lowest) / 2 sin(2 pi i / frames)

    Args:
        phi_range: lowest and highest elevation in degrees.
        frames: number of frames.
    """
    low, high = phi_range
    return (low + high) / 2 + (high - low) / 2 * torch.sin(2 * torch.pi * _phases(frames))


def _phases(frames: int) -> Float[Tensor, "frames"]:
    # Without the shift by a quarter step the two middle azimuths of an odd number of frames would be identical.
    return (torch.arange(frames) + (frames % 2) / 4) / frames


def turntable_cameras(
    sphere: Sphere, azimuths: Float[Tensor, "frames"], like: Cameras, size: tuple[int, int]
) -> Cameras:
    """Pinhole cameras that look at the sphere's centre, one for each frame.

    Args:
        sphere: a sphere with a single radius; see `fit_turntable`.
        azimuths: azimuth of each frame in degrees.
        like: a training camera, shape [1]. The frames contain its whole field of view.
        size: width and height of a frame in pixels.
    """
    radius = torch.tensor(float(sphere.radius_range[0]))
    elevations = turntable_elevations(sphere.elevation_range, len(azimuths))
    poses = [
        pose_at(sphere.center, sphere.up, azimuth=azimuth, elevation=elevation, radius=radius)
        for azimuth, elevation in zip(azimuths, elevations, strict=True)
    ]
    width, height = size
    # Twice the larger part on either side of the optical axis, which the frames have in their middle.
    seen = (2 * max(float(c), float(n) - float(c)) for c, n in ((like.cx, like.width), (like.cy, like.height)))
    scale = min(given / side for given, side in zip(size, seen, strict=True))
    return Cameras(
        camera_to_worlds=torch.stack(poses),
        fx=float(like.fx) * scale,
        fy=float(like.fy) * scale,
        cx=width / 2,
        cy=height / 2,
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
    )


def default_size(like: Cameras) -> tuple[int, int]:
    """Width and height in pixels of a training camera, shape [1], scaled down to at most 1000 on the longer side."""
    width, height = int(like.width), int(like.height)
    scale = min(1.0, LONGEST_DEFAULT_SIDE_PX / max(width, height))
    return round(width * scale), round(height * scale)
