"""Cameras that no photo was taken with, and poses that look like a mistake."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from dietnerf_ns.geometry.cameras import (
    SURROUND_ANGLE_DEG,
    nearest_point_to_axes,
    viewing_directions,
    widest_viewing_angle,
)
from dietnerf_ns.utils.errors import UserError

FEWEST_TO_JUDGE = 3
"""Cameras from which on their common point says something."""
SAME_POSE = 1e-6
"""Largest difference of a matrix element between equal poses, relative to the positions' range."""
WORST_FOLD = 0.5
"""A lens whose distortion folds the image below this part of the distance to the corner is refused."""
WORST_STRETCH = 2.0
"""A lens whose distortion moves the corner outwards by more than this factor is refused."""
RADII = 512
"""Samples along the image's half diagonal at which the distortion is checked."""


def check_cameras(cameras: Cameras, names: Sequence[str]) -> None:
    """Refuse impossible cameras, and say a word about suspicious ones.

    Args:
        cameras: shape [n]; camera-to-world matrices with OpenGL axes.
        names: names of the photos, which the messages quote.

    Raises:
        UserError: intrinsics or a pose that are not finite or not positive, or an impossible distortion.
    """
    _check_numbers(cameras, names)
    _check_distortion(cameras, names)
    for word in (_outside_principal_point(cameras, names), _equal_poses(cameras, names), _looking_away(cameras)):
        if word:
            CONSOLE.print(f"[yellow]{escape(word)}[/yellow]")


def _check_numbers(cameras: Cameras, names: Sequence[str]) -> None:
    finite = cameras.camera_to_worlds.flatten(1).isfinite().all(dim=-1)
    if not finite.all():
        raise UserError(f"{names[_first(~finite)]}: the pose has numbers that are not finite.")
    for name, values in (("fx", cameras.fx), ("fy", cameras.fy), ("width", cameras.width), ("height", cameras.height)):
        wrong = ~((values > 0) & values.float().isfinite())
        if wrong.any():
            index = _first(wrong.flatten())
            raise UserError(f"{names[index]}: the camera's {name} is {values[index].item():g}; it must be above 0.")


def _first(wrong: Tensor) -> int:
    return int(wrong.nonzero()[0])


def _check_distortion(cameras: Cameras, names: Sequence[str]) -> None:
    """The radial formula r (1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8) of COLMAP and OpenCV must describe some lens."""
    if cameras.distortion_params is None:
        return
    for index, name in enumerate(names):
        is_perspective = int(cameras.camera_type[index]) == CameraType.PERSPECTIVE.value
        coefficients = cameras.distortion_params[index][:4].double()
        if not is_perspective or not coefficients.any():
            continue
        problem = _problem_of_lens(coefficients, _corner(cameras, index))
        if problem:
            values = ", ".join(f"{value:g}" for value in coefficients.tolist())
            raise UserError(
                f"{name}: the distortion k1 to k4 = {values} {problem}, which no lens does. Correct it, or set it to 0."
            )


def _corner(cameras: Cameras, index: int) -> float:
    """Distance of the farthest corner from the principal point, in focal lengths."""
    cx, cy = float(cameras.cx[index]), float(cameras.cy[index])
    across = max(cx, float(cameras.width[index]) - cx) / float(cameras.fx[index])
    down = max(cy, float(cameras.height[index]) - cy) / float(cameras.fy[index])
    return (across**2 + down**2) ** 0.5


def _problem_of_lens(coefficients: Float[Tensor, "4"], corner: float) -> str | None:
    """What the formula does to a photo whose corner is at this distance, as a verb."""
    radii = torch.linspace(0, 3 * corner, 3 * RADII, dtype=torch.double)
    in_photo = radii * (1 + coefficients @ torch.stack([radii**exponent for exponent in (2, 4, 6, 8)]))
    falls = (in_photo.diff() <= 0).nonzero()
    growing = in_photo[: int(falls[0]) + 1] if len(falls) else in_photo
    if growing[-1] < WORST_FOLD * corner:
        return f"folds the image at {float(growing[-1]) / corner:.0%} of the distance to its corner"
    beyond = (growing >= corner).nonzero()
    if len(beyond) and WORST_STRETCH * radii[int(beyond[0])] < corner:
        return f"moves the corner outwards by a factor of {corner / float(radii[int(beyond[0])]):.1f}"
    return None


def _outside_principal_point(cameras: Cameras, names: Sequence[str]) -> str | None:
    inside = torch.ones_like(cameras.cx, dtype=torch.bool)
    for center, size in ((cameras.cx, cameras.width), (cameras.cy, cameras.height)):
        inside &= (center > (size / 4).clamp(max=1)) & (center < size)
    if inside.all():
        return None
    index = _first(~inside.flatten())
    return (
        f"{names[index]}: the principal point cx, cy = {float(cameras.cx[index]):g}, {float(cameras.cy[index]):g} is "
        f"not inside the photo of {int(cameras.width[index])}x{int(cameras.height[index])} pixels. Is it in pixels?"
    )


def _equal_poses(cameras: Cameras, names: Sequence[str]) -> str | None:
    poses = cameras.camera_to_worlds.double()
    spread = poses[..., 3].amax(dim=0) - poses[..., 3].amin(dim=0)
    rounded = (poses / (SAME_POSE * max(float(spread.max()), 1.0))).round().flatten(1)
    _, pose_of, uses = torch.unique(rounded, dim=0, return_inverse=True, return_counts=True)
    indices: list[int] = (pose_of == int(uses.argmax())).nonzero().flatten().tolist()
    alike = sorted({str(names[index]) for index in indices})
    if len(alike) == 1:
        return None
    return (
        f"{len(alike)} photos have the same pose ({', '.join(alike)}). Photos from one "
        "position say nothing about depth: are the poses right?"
    )


def _looking_away(cameras: Cameras) -> str | None:
    poses = cameras.camera_to_worlds
    if len(poses) < FEWEST_TO_JUDGE or widest_viewing_angle(poses) < SURROUND_ANGLE_DEG:
        return None
    offsets = nearest_point_to_axes(poses) - poses[..., 3]
    if ((offsets * viewing_directions(poses)).sum(dim=-1) >= 0).any():
        return None
    return (
        "All cameras look away from the point that their axes have in common. That is right for photos from inside a "
        "room. Otherwise the poses have OpenCV's axes (y down, z forward): negate the second and the third column of "
        "every transform_matrix."
    )
