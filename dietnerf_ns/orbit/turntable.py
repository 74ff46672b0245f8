"""The cameras of a turntable: once around the scene, or there and back along an arc. Pure functions.

theta is the azimuth, phi the elevation, both in degrees; lengths are in scene units.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from dietnerf_ns.geometry.cameras import (
    SURROUND_ANGLE_DEG,
    cameras_surround_scene,
    is_in_front,
    viewing_directions,
    widest_viewing_angle,
)
from dietnerf_ns.geometry.sphere import Range, Sphere, fit_sphere, pose_at, spherical_coordinates
from dietnerf_ns.utils.errors import UserError

FULL_CIRCLE = (0.0, 360.0)
LONGEST_DEFAULT_SIDE_PX = 1000


def fit_turntable(
    camera_to_worlds: Float[Tensor, "n 3 4"],
    *,
    theta_range: Range | None = None,
    phi: float | None = None,
    radius: float | None = None,
) -> Sphere:
    """The circle or arc that a turntable follows: a sphere with one elevation and one radius.

    Args:
        camera_to_worlds: the training cameras, OpenGL axes.
        theta_range: first and last azimuth; None is the full circle if the cameras surround the scene, otherwise
            from the leftmost to the rightmost of them.
        phi: elevation; None is the mean of the cameras'.
        radius: distance to the centre; None is the mean of the cameras'.

    Raises:
        UserError: the cameras have nothing in common that one could turn around, or all have the same azimuth.
    """
    sphere = fit_sphere(camera_to_worlds)
    if not is_in_front(sphere.center, camera_to_worlds):
        sphere = replace(sphere, center=_point_ahead(camera_to_worlds, radius))
    azimuths, elevations, radii = spherical_coordinates(camera_to_worlds, sphere.center, sphere.up)
    phi = float(elevations.mean()) if phi is None else phi
    radius = float(radii.mean()) if radius is None else radius
    if theta_range is None:
        theta_range = FULL_CIRCLE if cameras_surround_scene(camera_to_worlds) else _arc_of(azimuths)
    return replace(sphere, azimuth_range=theta_range, elevation_range=(phi, phi), radius_range=(radius, radius))


def _point_ahead(camera_to_worlds: Float[Tensor, "n 3 4"], distance: float | None) -> Float[Tensor, "3"]:
    if widest_viewing_angle(camera_to_worlds) >= SURROUND_ANGLE_DEG:
        raise UserError(
            "The training cameras look apart, not at one thing: there is nothing to turn around. "
            "ns-render interpolate moves between them instead."
        )
    if distance is None:
        raise UserError(
            "The training cameras look along parallel lines and not at one point: give --radius, the distance from "
            "them, in scene units, of the point to turn around."
        )
    direction = viewing_directions(camera_to_worlds).mean(0)
    return camera_to_worlds[:, :3, 3].mean(0) + distance * direction / direction.norm()


def _arc_of(azimuths: Float[Tensor, "n"]) -> Range:
    radians = torch.deg2rad(azimuths)
    middle = torch.rad2deg(torch.atan2(radians.sin().mean(), radians.cos().mean()))
    offsets = (azimuths - middle + 180) % 360 - 180
    if offsets.max() - offsets.min() < 0.01:
        raise UserError("All training cameras have the same azimuth: give --theta-range START END in degrees.")
    return float(middle + offsets.min()), float(middle + offsets.max())


def is_full_circle(theta_range: Range) -> bool:
    """Whether the range ends where it starts, after one turn or more."""
    start, end = theta_range
    return start != end and (end - start) % 360 == 0


def turntable_azimuths(theta_range: Range, frames: int, *, there_and_back: bool = True) -> Float[Tensor, "frames"]:
    """The azimuth of every frame.

    A full circle has equal steps and ends one step before its start, so that a loop goes on evenly. Over an arc,
    theta = start + (end - start) (1 - cos(2 pi i / frames)) / 2 for i = 0, 1, ... (of an odd number of frames 1/4, 5/4,
    ...) swings there and back, also without a jump; one way only, both ends are frames.
    """
    start, end = theta_range
    if is_full_circle(theta_range):
        share = torch.arange(frames) / frames
    elif there_and_back:
        # An odd number of frames is a quarter step late: else the two in the middle would be the same.
        phase = (torch.arange(frames) + (frames % 2) / 4) / frames
        share = (1 - torch.cos(2 * torch.pi * phase)) / 2
    else:
        share = torch.linspace(0, 1, frames)
    return start + (end - start) * share


def turntable_cameras(
    sphere: Sphere, azimuths: Float[Tensor, "frames"], like: Cameras, size: tuple[int, int]
) -> Cameras:
    """Pinhole cameras at these azimuths.

    Args:
        sphere: of one elevation and one radius, as `fit_turntable` gives it.
        azimuths: of the frames.
        like: a training camera, shape [1]; what it sees fits into the frame whole.
        size: (width, height) in pixels.
    """
    elevation, radius = torch.tensor(sphere.elevation_range[0]), torch.tensor(sphere.radius_range[0])
    poses = [pose_at(sphere.center, sphere.up, azimuth=a, elevation=elevation, radius=radius) for a in azimuths]
    width, height = size
    scale = min(width / float(like.width), height / float(like.height))
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
    """(width, height) of a training camera, shape [1], shrunk to at most 1000 pixels on the longer side."""
    width, height = int(like.width), int(like.height)
    scale = min(1.0, LONGEST_DEFAULT_SIDE_PX / max(width, height))
    return round(width * scale), round(height * scale)
