"""A cell of an experiment and its files. Imports nothing heavy, because workers of a cluster load it for every cell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

AS_IS = "as is"
"""Label in place of a choice of views, for scenes that are read as they are."""
AS_IS_MEANS = (
    "Each method reads the folder by itself, with its own choice of photos and their size. Those of the experiment "
    "(`views`, `resolution`, `test_stride`) do not count."
)
CELLS = "cells"
SPECIFICATION = "cell.json"
RESULT = "result.json"
DEGREES = "degrees_to_nearest_photo"
"""Key of an evaluated image in a result: the angle between its viewing direction and the nearest training view's."""
ABOUT_THE_IMAGE = ("name", DEGREES)
"""Keys of an evaluated image that are no metrics."""


@dataclass(frozen=True)
class Cell:
    """One run of an experiment: a scene, a choice of views, a method and a seed, trained and evaluated."""

    id: str
    """A readable part and a hash of everything that defines the cell; also the name of its folder."""
    scene: str
    views: str
    method: str
    """Label of the method."""
    seed: int
    train_arguments: tuple[str, ...]
    """Arguments of `ns-train`. Relative paths in them start at the results folder."""
    split: Literal["test", "val"]
    """The split that is evaluated, as the dataparser names it. A few-shot copy always keeps these frames as `test`."""
    similarity: dict[str, Any]
    """Settings of the encoder that compares renders with photos; see `SimilarityEncoderConfig`."""
    seconds: float | None = None
    """Training ends when its steps have taken this wall-clock time; None for no limit."""

    @property
    def folder(self) -> Path:
        """Folder of the cell's files, relative to the results folder."""
        return Path(CELLS, self.id)

    @property
    def config_file(self) -> Path:
        """File in which nerfstudio saves the run's configuration, relative to the results folder."""
        return self.folder / self.train_arguments[0] / "run" / "config.yml"


def slug(*parts: str) -> str:
    """The parts joined to a file name: letters, digits, dots, `_` within a part and `-` between parts."""
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in parts)
