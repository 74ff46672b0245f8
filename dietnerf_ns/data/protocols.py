"""Published few-shot protocols: which views are trained on, which frames are evaluated, at which size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TEST_SPLIT = 200
"""Frames of the test split of a NeRF-Synthetic scene."""


@dataclass(frozen=True)
class ViewProtocol:
    """A published choice of training and test views, so that numbers can be compared."""

    train_indices: tuple[int, ...]
    """Frames of the training split, in the file's order."""
    test_stride: int = 8
    """Every n-th frame of the full test split is evaluated."""
    resolution: tuple[int, int] = (400, 400)
    """Image size (width, height) in pixels that the published numbers were measured at."""

    @property
    def test_frames(self) -> list[int]:
        """Numbers of the evaluated frames of a complete test split."""
        return list(range(0, TEST_SPLIT, self.test_stride))


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

    Frames are counted by `frame_numbers`, so that a split that was already thinned out keeps all its frames.
    """
    return [i for i, frame in enumerate(frame_numbers(image_filenames)) if frame % protocol.test_stride == 0]


def frame_numbers(image_filenames: Sequence[Path]) -> list[int]:
    """The last number in each file name (`r_16.png` is 16), or the positions if a file has none."""
    return _numbers_in_names(image_filenames) or list(range(len(image_filenames)))


def _numbers_in_names(image_filenames: Sequence[Path]) -> list[int] | None:
    numbers = [re.findall(r"\d+", Path(name).stem) for name in image_filenames]
    return [int(found[-1]) for found in numbers] if all(numbers) else None


def departure_in_training(image_filenames: Sequence[Path], name: str) -> str | None:
    """A sentence if a training split is not in the published order, so that a protocol takes other photos.

    Args:
        image_filenames: the whole training split, which has all the protocol's views.
        name: of the protocol.
    """
    numbers = frame_numbers(image_filenames)
    wrong = next((view for view in PROTOCOLS[name].train_indices if numbers[view] != view), None)
    if wrong is None:
        return None
    return (
        f"Protocol {name}: view {wrong} of this training split is {Path(image_filenames[wrong]).name}, so that these "
        "are not the published views: do not compare the numbers with published ones."
    )


def departure_in_evaluation(image_filenames: Sequence[Path], name: str) -> str | None:
    """A sentence if the evaluated frames are not those that a protocol's numbers were published for."""
    published, numbers = PROTOCOLS[name].test_frames, _numbers_in_names(image_filenames)
    if numbers is None and len(image_filenames) == len(published) or sorted(numbers or []) == published:
        return None
    common = len(set(numbers or []) & set(published))
    return (
        f"Protocol {name} is published for {len(published)} test frames, {published[0]}, {published[1]}, ..., "
        f"{published[-1]}. This run has {len(image_filenames)}, of which {common} are among them: do not compare its "
        "numbers with published ones."
    )
