"""Notices that a checkpoint was trained on other photos than those that are given now."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE

from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.models.base import SemanticModel

DECIMALS = 4
TOLERANCE = 1e-3
"""In scene units, in which scenes have a size of about 1. Other machines round otherwise."""


def camera_fingerprint(cameras: Cameras) -> list[list[float]]:
    """The poses of the training cameras, one list of 12 numbers each, as a checkpoint keeps them.

    Args:
        cameras: shape [n].
    """
    poses = cameras.camera_to_worlds.detach().cpu().double().reshape(-1, 12)
    return [[round(number, DECIMALS) for number in pose] for pose in poses.tolist()]


def say_if_photos_differ(
    trained_on: Sequence[Sequence[float]] | None,
    given: Sequence[Sequence[float]] | None,
    model: SemanticModel,
    *,
    opens_photos: bool,
) -> None:
    """Print a line if the cameras differ, with the box that counts.

    Args:
        trained_on: fingerprint in the checkpoint; None in those of earlier versions, which are not compared.
        given: fingerprint of the present cameras.
        model: after loading.
        opens_photos: whether a box of the present photos was printed.
    """
    if trained_on is None or given is None or _is_same(trained_on, given):
        return
    what = f"{len(trained_on)} photos, now {len(given)}" if len(trained_on) != len(given) else "other camera poses"
    box = getattr(getattr(model, "field", None), "spatial_distortion", None)
    counts = ""
    if isinstance(box, ObjectBox):
        size = " x ".join(f"{2 * side:.2f}" for side in box.half_sizes.tolist())
        counts = f" The checkpoint's box counts, {size}{', not the one printed above' if opens_photos else ''}."
    CONSOLE.print(
        f"[yellow]The checkpoint was trained on other photos than these ({what}).{counts}[/yellow]", soft_wrap=True
    )


def _is_same(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> bool:
    if len(first) != len(second):
        return False
    return torch.allclose(torch.tensor(first), torch.tensor(second), rtol=TOLERANCE, atol=TOLERANCE)
