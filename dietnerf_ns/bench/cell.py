"""What a cell is and where its files are. Imports nothing heavy: workers of a cluster load this before every cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CELLS = "cells"
SPECIFICATION = "cell.json"
RESULT = "result.json"


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation."""

    id: str
    """A readable part and a hash of everything that defines the cell; the name of its folder."""
    scene: str
    views: str
    method: str
    """Label of the method."""
    seed: int
    train_arguments: tuple[str, ...]
    """Arguments of ns-train; paths in them are relative to the results folder."""
    split: Literal["test", "val"]
    """The split that is evaluated, as the dataparser names it; a few-shot copy holds the right frames under `test`."""
    similarity: dict[str, Any]
    """The encoder that renders are compared with."""

    @property
    def config_file(self) -> Path:
        """Where nerfstudio keeps the run's configuration, relative to the results folder."""
        return Path(CELLS, self.id, self.train_arguments[0], "run", "config.yml")
