"""Which few training views are kept, and how well they cover the directions. Pure functions of cameras.

Frame: camera-to-world matrices [N, 3, 4] with OpenGL axes (the camera looks along its -z), in the scene's own units.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs, Semantics
from torch import Tensor

from dietnerf_ns.errors import UserError

COVERAGE_ANGLE_DEG = 30.0
SURROUND_ANGLE_DEG = 60.0
"""Cameras whose viewing directions all differ by less face one way; from here on they may surround something."""
PER_VIEW_METADATA = ("depth_filenames", "normal_filenames", "camera_to_worlds", "semantics")


@dataclass(frozen=True)
class Protocol:
    """A published choice of views, so that numbers can be compared."""

    train_indices: tuple[int, ...]
    """Frames of the training split, in the file's order."""
    test_stride: int = 8
    """Every n-th frame of the full test split is evaluated."""
    resolution: tuple[int, int] = (400, 400)
    """Image size (width, height) in pixels that the published numbers were measured at."""


EIGHT_BLENDER_VIEWS = (26, 86, 2, 55, 75, 93, 16, 73)
PROTOCOLS = {
    # DietNeRF's released code with seed 0: the first eight of np.random.RandomState(0).permutation(100).
    "blender-8": Protocol(EIGHT_BLENDER_VIEWS),
    # The first four of the eight, as in InfoNeRF's released configuration.
    "blender-4": Protocol(EIGHT_BLENDER_VIEWS[:4]),
    # DietNeRF's released configuration for lego with one unseen side.
    "lego-14-occluded": Protocol((2, 5, 8, 9, 10, 16, 34, 35, 40, 52, 53, 54, 58, 60)),
}


def is_pinhole(cameras: Cameras) -> bool:
    """Whether all cameras are perspective ones, with or without lens distortion."""
    return bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all())


def viewing_directions(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3"]:
    """Unit vectors along the optical axes, pointing into the scene."""
    return torch.nn.functional.normalize(-camera_to_worlds[:, :3, 2], dim=-1)


def widest_viewing_angle(camera_to_worlds: Float[Tensor, "n 3 4"]) -> float:
    """The largest angle between two viewing directions, in degrees."""
    directions = viewing_directions(camera_to_worlds)
    return float(torch.rad2deg(torch.acos((directions @ directions.T).clamp(-1, 1)).max()))


def select_views(
    camera_to_worlds: Float[Tensor, "n 3 4"],
    *,
    num_views: int | None,
    strategy: str,
    seed: int,
    indices: Sequence[int] | None,
    protocol: str | None,
) -> list[int]:
    """Choose the training views that are kept.

    Args:
        camera_to_worlds: all training cameras of the dataset.
        num_views: how many to keep; None keeps all.
        strategy: `first`, `random` (seeded) or `farthest` (greedy, see `farthest_views`).
        seed: of `random`; seed 0 on 100 cameras gives the views of the protocol blender-8.
        indices: an explicit list instead.
        protocol: a name in `PROTOCOLS` instead.

    Returns:
        Indices into the training split, in the order of choice.

    Raises:
        UserError: two ways of choosing at once, or views that the dataset does not have.
    """
    ways = {"num-views": num_views, "view-indices": indices, "protocol": protocol}
    named = [f"--pipeline.datamanager.{name}" for name, value in ways.items() if value is not None]
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} contradict each other: name the training views in one way only.")
    available = len(camera_to_worlds)
    if protocol is not None:
        return _checked(PROTOCOLS[protocol].train_indices, available, f"protocol {protocol}")
    if indices is not None:
        return _checked(indices, available, "--pipeline.datamanager.view-indices")
    if num_views is None:
        return list(range(available))
    if not 1 <= num_views <= available:
        raise UserError(
            f"--pipeline.datamanager.num-views {num_views}: the training split has {available} views; "
            f"choose 1 to {available}."
        )
    if strategy == "first":
        return list(range(num_views))
    if strategy == "random":
        return np.random.RandomState(seed).permutation(available)[:num_views].tolist()
    return farthest_views(camera_to_worlds, num_views)


def _checked(indices: Sequence[int], available: int, source: str) -> list[int]:
    wrong = [index for index in indices if not 0 <= index < available]
    if wrong or not indices:
        raise UserError(f"{source}: views {wrong} do not exist; the training split has views 0 to {available - 1}.")
    if len(set(indices)) < len(indices):
        raise UserError(f"{source}: {list(indices)} names a view twice.")
    return list(indices)


def farthest_views(camera_to_worlds: Float[Tensor, "n 3 4"], num_views: int) -> list[int]:
    """Greedy farthest-point choice: each next view is the one farthest from all views taken so far.

    The distance of two views is the angle between their viewing directions over 180 degrees, plus the distance of
    their positions over the largest distance of two cameras. The first view is one end of the most distant pair.
    """
    directions, positions = viewing_directions(camera_to_worlds), camera_to_worlds[:, :3, 3]
    angles = torch.acos((directions @ directions.T).clamp(-1, 1)) / torch.pi
    lengths = torch.cdist(positions, positions)
    distances = angles + lengths / lengths.max().clamp_min(1e-9)
    taken = [int(distances.max(dim=1).values.argmax())]
    while len(taken) < num_views:
        nearest_taken = distances[:, taken].min(dim=1).values
        nearest_taken[taken] = -1
        taken.append(int(nearest_taken.argmax()))
    return taken


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


def keep_views(outputs: DataparserOutputs, indices: Sequence[int]) -> DataparserOutputs:
    """The same scene with only these views: images, cameras, masks and per-view metadata, in the given order.

    The world frame, scale and scene box stay those of the whole dataset.
    """
    indices = list(indices)

    def pick(values):
        if values is None or (isinstance(values, list) and not values):
            return values
        if isinstance(values, Semantics):
            return replace(values, filenames=pick(values.filenames))
        return values[indices] if isinstance(values, Tensor | np.ndarray) else [values[i] for i in indices]

    metadata = {k: pick(v) if k in PER_VIEW_METADATA else v for k, v in outputs.metadata.items()}
    return replace(
        outputs,
        image_filenames=pick(outputs.image_filenames),
        cameras=outputs.cameras[torch.tensor(indices, dtype=torch.long)],
        mask_filenames=pick(outputs.mask_filenames),
        metadata=metadata,
    )


def protocol_test_indices(image_filenames: Sequence[Path], protocol: Protocol) -> list[int]:
    """Frames of a test split that the protocol evaluates.

    A frame's number is the last number in its file name (`r_16.png` is 16), so that a split that was already thinned
    out keeps all its frames; files without numbers are counted by position.
    """
    numbers = [re.findall(r"\d+", Path(name).stem) for name in image_filenames]
    if all(numbers):
        frames = [int(found[-1]) for found in numbers]
    else:
        frames = list(range(len(image_filenames)))
    return [i for i, frame in enumerate(frames) if frame % protocol.test_stride == 0]
