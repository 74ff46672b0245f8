"""results.json: all results of a report in one file, which passes them on without the folders of the cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from dietnerf_ns.bench.summary import (
    IDENTITY,
    CellEntry,
    PooledFile,
    ResultFile,
    Results,
    SettingsEntry,
    as_row,
    read_checked_json,
)
from dietnerf_ns.utils.errors import UserError

STORED = "results.json"


@dataclass
class StoredCell(ResultFile, CellEntry):
    """A finished cell."""


@dataclass
class StoredFile:
    """Content of `results.json`."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    baseline: str
    experiment: SettingsEntry
    cells: list[StoredCell]
    unfinished: list[CellEntry]
    pooled: PooledFile


def as_json(results: Results) -> dict[str, Any]:
    """All results down to single images, without the learning curves, which stay in the cells' files."""
    finished = {row.id for row in results.rows}
    cells = [
        {name: getattr(row, name) for name in IDENTITY}
        | {name: value for name, value in row.result.items() if name != "curves"}
        for row in results.rows
    ]
    unfinished = [{name: cell[name] for name in IDENTITY} for cell in results.cells if cell["id"] not in finished]
    return {
        "name": results.name,
        "baseline": results.baseline,
        "experiment": without_folders(results.experiment),
        "cells": cells,
        "unfinished": unfinished,
        "pooled": results.fid_kid,
    }


def without_folders(content: Any) -> Any:
    """The same settings with absolute paths cut down to file names, because folders mean nothing on other machines."""
    if isinstance(content, dict):
        return {key: without_folders(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_folders(value) for value in content]
    return Path(content).name if isinstance(content, str) and Path(content).is_absolute() else content


def read_stored(folder: Path) -> Results:
    """Read the `results.json` of a report.

    Raises:
        UserError: no cell was finished, or the file is damaged.
    """
    content = read_checked_json(folder / STORED, StoredFile)
    if not content["cells"]:
        raise UserError(f"{folder / STORED}: no cell was finished; nothing to report.")
    rows = [
        as_row(cell, {name: value for name, value in cell.items() if name not in IDENTITY}, None)
        for cell in content["cells"]
    ]
    cells = [*content["cells"], *content["unfinished"]]
    return Results(
        name=content["name"],
        baseline=content["baseline"],
        experiment=content["experiment"],
        cells=[{name: cell[name] for name in IDENTITY} for cell in cells],
        rows=rows,
        fid_kid=content["pooled"],
    )
