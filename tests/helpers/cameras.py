"""Cameras around a point, on an arc and side by side."""

from __future__ import annotations

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from dietnerf_ns.geometry.sphere import Sphere, pose_at
from dietnerf_ns.semantic.poses import pose_on_sphere

CENTER, UP = torch.tensor([0.3, -0.2, 0.7]), torch.tensor([0.0, 0.0, 1.0])


def ring_of_poses(count: int, *, center=(0.0, 0.0, 0.0), elevation: float = 30.0, radius: float = 4.0) -> torch.Tensor:
    """Camera-to-world matrices [count, 3, 4] around a centre, evenly in azimuth, all looking at it, +z up."""
    poses = []
    for index in range(count):
        azimuth = 360.0 * index / count
        sphere = Sphere(
            torch.tensor(center),
            torch.tensor([0.0, 0.0, 1.0]),
            radius_range=(radius, radius),
            elevation_range=(elevation, elevation),
            azimuth_range=(azimuth, azimuth),
        )
        poses.append(pose_on_sphere(sphere, torch.Generator()))
    return torch.stack(poses)


def pinhole_cameras(poses: torch.Tensor, *, width: int = 40, height: int = 30, focal: float = 35.0) -> Cameras:
    return Cameras(
        poses,
        fx=focal,
        fy=focal,
        cx=width / 2,
        cy=height / 2,
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
    )


def cameras_side_by_side(count=5, spread=1.0):
    poses = torch.eye(4)[:3].repeat(count, 1, 1)
    poses[:, 0, 3] = torch.linspace(-spread, spread, count)
    return pinhole_cameras(poses, width=40, height=30, focal=40.0)


def arc_of_poses(azimuths, elevation=10.0, radius=6.0):
    """Cameras that look at CENTER from one side."""
    place = {"elevation": torch.tensor(elevation), "radius": torch.tensor(radius)}
    return torch.stack([pose_at(CENTER, UP, azimuth=torch.tensor(float(a)), **place) for a in azimuths])
