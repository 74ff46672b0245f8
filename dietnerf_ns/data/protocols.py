"""Published few-shot protocols: which views are trained on, which frames are evaluated, at which size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ViewProtocol:
    """A published choice of training and test views, so that numbers can be compared."""

    train_indices: tuple[int, ...]
    """Frames of the training split, in the file's order."""
    test_stride: int = 8
    """Every n-th frame of the full test split is evaluated."""
    resolution: tuple[int, int] = (400, 400)
    """Image size (width, height) in pixels that the published numbers were measured at."""


EIGHT_BLENDER_VIEWS = (26, 86, 2, 55, 75, 93, 16, 73)
PORT_RESOLUTION = (800, 800)
PROTOCOLS = {
    # DietNeRF's released code with seed 0: the first eight of np.random.RandomState(0).permutation(100).
    "blender-8": ViewProtocol(EIGHT_BLENDER_VIEWS),
    # The first four of the eight, as in InfoNeRF's released configuration.
    "blender-4": ViewProtocol(EIGHT_BLENDER_VIEWS[:4]),
    # DietNeRF's released configuration for lego with one unseen side.
    "lego-14-occluded": ViewProtocol((2, 5, 8, 9, 10, 16, 34, 35, 40, 52, 53, 54, 58, 60)),
    # Those of the 2021 JAX port, github.com/codestella/putting-nerf-on-a-diet 6913693. Its lego views are other ones.
    "port-lego-14-occluded": ViewProtocol(
        (2, 5, 10, 40, 52, 53, 69, 78, 83, 85, 90, 94, 96, 97), resolution=PORT_RESOLUTION
    ),
    "port-ship-14-occluded": ViewProtocol(
        (12, 28, 32, 33, 35, 36, 38, 44, 55, 66, 67, 88, 95, 96), resolution=PORT_RESOLUTION
    ),
}


def protocol_test_indices(image_filenames: Sequence[Path], protocol: ViewProtocol) -> list[int]:
    """Indices of the frames of a test split that the protocol evaluates.

    A frame's number is the last number in its file name (`r_16.png` is 16), so that a split that was already thinned
    out keeps all its frames; files without numbers are counted by position.
    """
    numbers = [re.findall(r"\d+", Path(name).stem) for name in image_filenames]
    if all(numbers):
        frames = [int(found[-1]) for found in numbers]
    else:
        frames = list(range(len(image_filenames)))
    return [i for i, frame in enumerate(frames) if frame % protocol.test_stride == 0]
