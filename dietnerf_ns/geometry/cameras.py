"""What a set of cameras looks at: directions, the common centre, and whether they surround it or face one way.

Pure functions of cameras. Frame: camera-to-world matrices [n, 3, 4] with OpenGL axes (a camera looks along its -z,
+y is up), in scene units; angles in degrees.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor
from torch.nn.functional import normalize

COVERAGE_ANGLE_DEG = 30.0
ONE_POSITION = 1e-6
"""Distance between cameras relative to their coordinates that is rounding error in single precision."""
LEAST_DISTANCE = 1e-7
"""Distance in scene units that is rounding error of centred cameras."""
LEAST_SAID = 0.01
"""What axes say about a place along them, relative to one across: the squared sine of their angles to the mean one, on
average. Axes at 169 degrees say this much, and poses are wrong by a degree at times."""
STRAY_SHARE = 0.25
"""Of the cameras, that may look elsewhere than the others."""
SURROUND_ANGLE_DEG = 60.0
"""Front-facing captures have all their viewing directions within this angle of each other."""


def is_pinhole(cameras: Cameras) -> bool:
    """Whether all cameras are perspective cameras, with or without lens distortion."""
    return bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all())


def viewing_directions(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3"]:
    """Unit vectors along the optical axes, pointing into the scene."""
    return normalize(-camera_to_worlds[:, :3, 2], dim=-1)


def widest_viewing_angle(camera_to_worlds: Float[Tensor, "n 3 4"]) -> float:
    """The largest angle between two viewing directions, in degrees."""
    directions = viewing_directions(camera_to_worlds)
    return float(torch.rad2deg(torch.acos((directions @ directions.T).clamp(-1, 1)).max()))


def direction_coverage(camera_to_worlds: Float[Tensor, "n 3 4"], num_directions: int = 4096) -> float:
    """Share of all directions, in [0, 1], that lie within 30 degrees of the viewing direction of some view.

    One view covers 0.067, eight at most 0.54. Measured on a Fibonacci lattice of `num_directions` points.
    """
    i = torch.arange(num_directions) + 0.5
    height = 1 - 2 * i / num_directions
    azimuth = torch.pi * (1 + 5**0.5) * i
    ring = (1 - height**2).sqrt()
    lattice = torch.stack([ring * azimuth.cos(), ring * azimuth.sin(), height], dim=-1)
    cosines = lattice @ viewing_directions(camera_to_worlds).to(lattice).T  # directions x views
    covered = cosines.max(dim=1).values >= np.cos(np.radians(COVERAGE_ANGLE_DEG))
    return float(covered.float().mean())


def nearest_point_to_axes(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """The point with the least sum of squared distances to the cameras' optical axes.

    Between cameras that face each other the axes do not say where along them it is; it is then drawn to the middle of
    the cameras.
    """
    directions, origins = viewing_directions(camera_to_worlds), camera_to_worlds[:, :3, 3]
    across = torch.eye(3).to(origins) - directions[:, :, None] * directions[:, None, :]  # n x 3 x 3
    system, right_side = across.sum(0), (across @ origins[..., None]).sum(0)
    if (directions @ directions.T).min() < 0:
        said, axes = torch.linalg.eigh(system)
        pull = axes @ torch.diag((LEAST_SAID * len(origins) - said).clamp(min=0)) @ axes.T
        system, right_side = system + pull, right_side + pull @ origins.mean(dim=0)[:, None]
    return torch.linalg.lstsq(system, right_side, driver=None).solution[:, 0]


def up_vector(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """The scene's up direction, a unit vector: perpendicular to all cameras' right axes, because photos are rarely
    rolled.

    Where the right axes do not span a plane (one camera, or cameras side by side) it is the mean of the cameras' up
    axes.
    """
    mean_up = normalize(camera_to_worlds[:, :3, 1].mean(0), dim=0)
    _, spread, axes = torch.linalg.svd(camera_to_worlds[:, :3, 0], full_matrices=True)
    if len(spread) < 2 or spread[1] < 0.1 * spread[0]:
        return mean_up
    return axes[2] if axes[2] @ mean_up >= 0 else -axes[2]


def looking_at_one_place(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Float[Tensor, "kept 3 4"]:
    """The cameras that look at a common centre, which lies in front of each; the others are at most a quarter.

    A pose that was found wrongly, or a photo of something else, is among the others. All cameras are returned if there
    is no such centre.
    """
    kept = camera_to_worlds
    while len(kept) >= max(2, (1 - STRAY_SHARE) * len(camera_to_worlds)):
        ahead = _distances_ahead(nearest_point_to_axes(kept), kept)
        if (ahead > 0).all():
            return kept
        kept = kept[ahead > 0]
    return camera_to_worlds


def _distances_ahead(point: Float[Tensor, "3"], camera_to_worlds: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n"]:
    return ((point - camera_to_worlds[:, :3, 3]) * viewing_directions(camera_to_worlds)).sum(-1)


def is_in_front(point: Float[Tensor, "3"], camera_to_worlds: Float[Tensor, "n 3 4"]) -> bool:
    """Whether the point lies in front of every camera."""
    return bool((_distances_ahead(point, camera_to_worlds) > 0).all())


def cameras_surround_scene(camera_to_worlds: Float[Tensor, "n 3 4"]) -> bool:
    """Whether the cameras look at one place from clearly different sides.

    True if some two viewing directions are at least 60 degrees apart and the point nearest to all optical axes lies
    in front of every camera. Front-facing captures fail the first test, captures that look outwards the second.
    Cameras at one position surround nothing.
    """
    if at_one_position(camera_to_worlds):
        return False
    in_front = is_in_front(nearest_point_to_axes(camera_to_worlds), camera_to_worlds)
    return widest_viewing_angle(camera_to_worlds) >= SURROUND_ANGLE_DEG and in_front


def at_one_position(camera_to_worlds: Float[Tensor, "n 3 4"]) -> bool:
    """Whether the cameras' positions differ by no more than rounding errors."""
    positions = camera_to_worlds[:, :3, 3]
    spread = float((positions - positions[0]).abs().max())
    return spread <= max(ONE_POSITION * float(positions.abs().max()), LEAST_DISTANCE)


def surround_one_object(cameras: Cameras) -> bool:
    """Whether these are pinhole cameras that look at one object from clearly different sides."""
    return is_pinhole(cameras) and cameras_surround_scene(cameras.camera_to_worlds.cpu())


def is_front_facing(cameras: Cameras) -> bool:
    """Whether these are pinhole cameras at different positions whose viewing directions lie within 60 degrees."""
    apart = not at_one_position(cameras.camera_to_worlds)
    return apart and is_pinhole(cameras) and widest_viewing_angle(cameras.camera_to_worlds) < SURROUND_ANGLE_DEG


def shorter_side(cameras: Cameras) -> int:
    """The shorter image side in pixels, of the smallest image."""
    return int(torch.minimum(cameras.width, cameras.height).min())
