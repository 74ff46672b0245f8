"""Joins results of parts of one experiment: of several machines, jobs of a cluster, or a report stored earlier."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dietnerf_ns.bench.stored import STORED, read_stored, without_folders
from dietnerf_ns.bench.summary import EXPERIMENT, Results, Row, read_results
from dietnerf_ns.utils.errors import UserError

COMMON = ("resolution", "evaluate", "test_stride", "val_frames", "similarity", "seconds", "unseen_from")
"""Keys of an experiment that all joined parts must share: a report says them once, and compares like with like."""


def read_joined(folders: Sequence[Path]) -> Results:
    """Read folders with results of one experiment, or of parts of it, as one.

    Each is the results folder of `dietnerf-bench run`, or the folder of a report, of which `results.json` is read: it
    has neither renders nor learning curves. A cell that several folders have is read from the first that finished it.

    Raises:
        UserError: a folder has no results or damaged ones, or the folders' experiments do not belong together.
    """
    parts = [_read(folder) for folder in folders]
    for folder, part in zip(folders[1:], parts[1:], strict=True):
        _check_same_experiment(folders[0], parts[0], folder, part)
    return parts[0] if len(parts) == 1 else _join(folders, parts)


def _read(folder: Path) -> Results:
    stored = (folder / STORED).is_file() and not (folder / EXPERIMENT).is_file()
    return read_stored(folder) if stored else read_results(folder)


def _check_same_experiment(first_folder: Path, first: Results, folder: Path, part: Results) -> None:
    for key in COMMON:
        # A stored report has no folders in its settings.
        ours, theirs = (without_folders(_setting(each, key)) for each in (first, part))
        if ours != theirs:
            raise UserError(f"{folder}: {key} is {theirs}, but {ours} in {first_folder}; join only equal ones.")


def _setting(results: Results, key: str) -> Any:
    """A setting of the experiment; results of versions that did not store it have the default."""
    return results.experiment[key] if key in results.experiment else _defaults()[key]


@functools.cache
def _defaults() -> dict[str, Any]:
    from dietnerf_ns.bench.experiment import Experiment  # loads nerfstudio, which other reports do not need

    return asdict(Experiment((), ()))


def _join(folders: Sequence[Path], parts: list[Results]) -> Results:
    finished = {row.id: row for part in reversed(parts) for row in part.rows}
    cells = list({cell["id"]: cell for part in parts for cell in part.cells}.values())
    _check_ids(cells)
    orders = {key: _unique(cell[key] for cell in cells) for key in ("scene", "views", "method")}
    cells.sort(key=lambda cell: (*(order.index(cell[key]) for key, order in orders.items()), cell["seed"]))
    rows = [finished[cell["id"]] for cell in cells if cell["id"] in finished]
    _check_images(rows)
    _check_definitions(folders, parts)
    lists = {
        key: _unique(entry for part in parts for entry in part.experiment.get(key, ()))
        for key in ("scenes", "views", "seeds")
    }
    return replace(
        parts[0],
        experiment={**parts[0].experiment, **lists, "overrides": {}, "methods": _joined_methods(folders, parts)},
        cells=cells,
        rows=rows,
        fid_kid={
            "pools": _joined_pools(parts),
            "left_out": {name: reason for part in parts for name, reason in part.fid_kid["left_out"].items()},
        },
    )


def _joined_pools(parts: list[Results]) -> list[dict[str, Any]]:
    """FID and KID of each group of cells, from the first part that has them."""
    pools: dict[tuple[str, ...], dict[str, Any]] = {}
    for part in parts:
        for pool in part.fid_kid["pools"]:
            pools.setdefault(tuple(pool["cells"]), pool)
    return list(pools.values())


def _unique(entries: Iterable[Any]) -> list[Any]:
    """The entries without repetitions, in order. Entries need not be hashable."""
    unique: list[Any] = []
    for entry in entries:
        if entry not in unique:
            unique.append(entry)
    return unique


def _check_ids(cells: list[Mapping[str, Any]]) -> None:
    """Refuse two cells that differ in nothing but their ids: data, version or default settings are not the same."""
    ids: dict[tuple, str] = {}
    for cell in cells:
        place = cell["scene"], cell["views"], cell["method"], cell["seed"]
        other = ids.setdefault(place, cell["id"])
        if other != cell["id"]:
            raise UserError(
                f"{other} and {cell['id']}: the same cell, but with other data or default settings, of another "
                "version, or with other code of a plugin; join results that were made with the same."
            )


def _check_images(rows: list[Row]) -> None:
    """Refuse cells of the same scene and views that were evaluated on different images."""
    others: dict[tuple[str, str], Row] = {}
    for row in rows:
        other = others.setdefault((row.scene, row.views), row)
        images, expected = (sorted(image["name"] for image in each.result["images"]) for each in (row, other))
        if images != expected:
            raise UserError(f"{other.id} and {row.id}: evaluated on different images of {row.scene}; join equal ones.")


def _check_definitions(folders: Sequence[Path], parts: list[Results]) -> None:
    """Refuse scenes of one name with other dataparsers or settings, and other views of a scene under one label."""
    known: dict[str, Any] = {}
    for folder, part in zip(folders, parts, strict=True):
        for scene in part.experiment.get("scenes", ()):
            named = {f"scene {scene['name']}": {**scene, "views": None}}
            for choice in scene.get("views") or part.experiment.get("views", ()):
                if choice.get("label"):
                    named[f"views {choice['label']} of {scene['name']}"] = choice
            for name, entry in named.items():
                # A stored report has no folders in its settings.
                if without_folders(known.setdefault(name, entry)) != without_folders(entry):
                    raise UserError(f"{folder}: {name}: other settings here than in the folders before it.")


def _joined_methods(folders: Sequence[Path], parts: list[Results]) -> list[dict[str, Any]]:
    """The methods of all parts, each with the settings that its own part adds for all methods.

    Raises:
        UserError: two parts have different methods under the same label.
    """
    methods: dict[str, dict[str, Any]] = {}
    for folder, part in zip(folders, parts, strict=True):
        for method in part.experiment["methods"]:
            label = method["label"] or method["name"]
            overrides = {**part.experiment["overrides"], **method["overrides"]}
            joined = methods.setdefault(label, {**method, "overrides": overrides})
            # A stored report has no folders in its settings.
            if without_folders([joined["name"], joined["overrides"]]) != without_folders([method["name"], overrides]):
                raise UserError(f"{folder}: {label} has other settings here than in the folders before it.")
    return list(methods.values())
