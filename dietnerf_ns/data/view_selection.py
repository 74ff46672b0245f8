"""Which few training views are kept. Pure functions of cameras.

Frame: camera-to-world matrices [n, 3, 4] with OpenGL axes (the camera looks along its -z), in scene units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs, Semantics
from torch import Tensor

from dietnerf_ns.data.protocols import PROTOCOLS
from dietnerf_ns.geometry.cameras import viewing_directions
from dietnerf_ns.utils.errors import SettingError

PER_VIEW_METADATA = ("depth_filenames", "normal_filenames", "camera_to_worlds", "semantics")


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
        SettingError: two ways of choosing at once, or views that the dataset does not have.
    """
    ways = {"num_views": num_views, "view_indices": indices, "protocol": protocol}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        others = " and ".join(name.replace("_", "-") for name in given[1:])
        raise SettingError(
            given[0], ways[given[0]], f"contradicts {others}; choose the training views in one way only."
        )
    available = len(camera_to_worlds)
    if protocol is not None:
        return _checked("protocol", protocol, PROTOCOLS[protocol].train_indices, available)
    if indices is not None:
        return _checked("view_indices", list(indices), indices, available)
    if num_views is None:
        return list(range(available))
    if not 1 <= num_views <= available:
        raise SettingError(
            "num_views", num_views, f"the training split has {available} views; choose 1 to {available}."
        )
    if strategy == "first":
        return list(range(num_views))
    if strategy == "random":
        return np.random.RandomState(seed).permutation(available)[:num_views].tolist()
    return farthest_views(camera_to_worlds, num_views)


def _checked(setting: str, value: object, indices: Sequence[int], available: int) -> list[int]:
    wrong = [index for index in indices if not 0 <= index < available]
    if wrong or not indices:
        raise SettingError(
            setting, value, f"views {wrong} do not exist; the training split has views 0 to {available - 1}."
        )
    if len(set(indices)) < len(indices):
        raise SettingError(setting, value, "names a view twice.")
    return list(indices)


def farthest_views(camera_to_worlds: Float[Tensor, "n 3 4"], num_views: int) -> list[int]:
    """Greedy farthest-point sampling: each next view is the one farthest from all views chosen so far.

    The distance of two views is the angle between their viewing directions over 180 degrees, plus the distance of
    their positions over the largest distance of two cameras. The first view is one end of the most distant pair.
    """
    directions, positions = viewing_directions(camera_to_worlds), camera_to_worlds[:, :3, 3]
    angles = torch.acos((directions @ directions.T).clamp(-1, 1)) / torch.pi
    lengths = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")  # exact far from 0, too
    distances = angles + lengths / lengths.max().clamp_min(1e-9)
    taken = [int(distances.max(dim=1).values.argmax())]
    while len(taken) < num_views:
        nearest_taken = distances[:, taken].min(dim=1).values
        nearest_taken[taken] = -1
        taken.append(int(nearest_taken.argmax()))
    return taken


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
