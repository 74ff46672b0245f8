"""Numbers of many cells as few: means, standard deviations over seeds, paired differences. Reads result files only."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

from dietnerf_ns.utils.errors import UserError

EXPERIMENT = "experiment.json"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metric:
    """How a number is shown."""

    name: str
    """`convention/metric`, as in the result files."""
    title: str
    digits: int


METRICS = (
    Metric("nerfstudio/psnr", "PSNR (dB)", 2),
    Metric("nerfstudio/ssim", "SSIM", 3),
    Metric("nerfstudio/lpips", "LPIPS (Alex)", 3),
    Metric("semantic/similarity", "similarity", 3),
)
PAPER_METRICS = (
    Metric("paper/psnr", "PSNR (dB)", 2),
    Metric("paper/ssim", "SSIM", 3),
    Metric("paper/lpips", "LPIPS (VGG, not rescaled)", 3),
)
POOLED_METRICS = (Metric("paper/fid", "FID", 1), Metric("paper/kid", "KID", 4))
COST = (
    Metric("training/seconds", "training (s)", 0),
    Metric("training/steps_per_second", "steps/s", 1),
    Metric("training/peak_memory_mib", "peak memory (MiB)", 0),
    Metric("training/peak_gpu_memory_mib", "peak GPU memory by torch (MiB)", 0),
)


@dataclass(frozen=True)
class Row:
    """One finished cell."""

    id: str
    scene: str
    views: str
    method: str
    seed: int
    values: Mapping[str, float]
    """Means over the cell's images, and what training cost, by the metrics' names."""
    result: Mapping[str, Any]
    """The cell's whole result file."""

    @property
    def pair(self) -> tuple[str, str, int]:
        """What two methods must share to be compared."""
        return self.scene, self.views, self.seed


@dataclass(frozen=True)
class Results:
    """An experiment and what came out of it so far."""

    folder: Path
    name: str
    baseline: str
    experiment: Mapping[str, Any]
    cells: list[Mapping[str, Any]]
    """Every cell, finished or not, in the order of the report."""
    rows: list[Row]
    pooled: Mapping[str, Any]
    """FID and KID; see `fid_kid_of_methods`."""

    @property
    def methods(self) -> list[str]:
        """Labels in the order of the report."""
        return list(dict.fromkeys(cell["method"] for cell in self.cells))

    def only(self, **wanted: Any) -> Results:
        """The same experiment, cut down to the cells with these values."""
        cells = [cell for cell in self.cells if all(cell[name] == value for name, value in wanted.items())]
        return replace(self, cells=cells, rows=self.of(**wanted))

    def of(self, **wanted: Any) -> list[Row]:
        """The finished cells with these values, such as `method="nerfacto"`."""
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())]


def read_results(folder: Path) -> Results:
    """Read what `dietnerf-bench run` wrote.

    Raises:
        UserError: the folder holds no experiment, or no cell of it is finished.
    """
    if not (folder / EXPERIMENT).is_file():
        raise UserError(f"{folder}: no results here ({EXPERIMENT} is missing); give the --out of `dietnerf-bench run`.")
    description = json.loads((folder / EXPERIMENT).read_text())
    rows = []
    for cell in description["cells"]:
        file = folder / "cells" / cell["id"] / "result.json"
        if file.is_file():
            rows.append(_row(cell, json.loads(file.read_text())))
    if not rows:
        raise UserError(f"{folder}: none of the {len(description['cells'])} cells is finished; nothing to report.")
    pooled_file = folder / "pooled.json"
    pooled = json.loads(pooled_file.read_text()) if pooled_file.is_file() else {"pools": [], "left_out": {}}
    return Results(folder, **description, rows=rows, pooled=pooled)


def _row(cell: Mapping[str, Any], result: Mapping[str, Any]) -> Row:
    values = result["metrics"] | {f"training/{name}": value for name, value in result["training"].items()}
    place = {name: cell[name] for name in ("id", "scene", "views", "method", "seed")}
    return Row(**place, values=values, result=result)


@dataclass(frozen=True)
class Spread:
    """Mean of some values and, if there are at least two, their standard deviation (n - 1)."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Of the values; None if there are none."""
        values = list(values)
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def over_seeds(rows: Iterable[Row], metric: str) -> Spread | None:
    """Mean over the cells, and the deviation of the seeds' means; cells without the metric are left out.

    Seeds that lack a (scene, views) of the fullest one do not count for the deviation: scenes differ more than seeds.
    """
    by_seed: dict[int, dict[tuple[str, str], float]] = {}
    for row in rows:
        if metric in row.values:
            by_seed.setdefault(row.seed, {})[row.scene, row.views] = row.values[metric]
    if not by_seed:
        return None
    fullest = max(by_seed.values(), key=len).keys()
    whole = Spread.of(statistics.fmean(values.values()) for values in by_seed.values() if values.keys() == fullest)
    return Spread(statistics.fmean(value for values in by_seed.values() for value in values.values()), whole.deviation)


@dataclass(frozen=True)
class Difference:
    """Mean paired difference and its confidence interval."""

    mean: float
    half_width: float | None
    """Half of the 95 % Student-t interval; None below two units."""
    n: int
    """Independent units: the scenes, or the pairs if all are of one scene."""


def paired_difference(rows: Iterable[Row], baseline: Iterable[Row], metric: str) -> Difference | None:
    """Difference to the baseline over the (scene, views, seed) that both have; None if there is no such pair.

    Pairs of one scene are not independent: with several scenes each counts once, with the mean of its differences.
    """
    reference = {row.pair: row.values[metric] for row in baseline if metric in row.values}
    by_scene: dict[str, list[float]] = {}
    for row in rows:
        if metric in row.values and row.pair in reference:
            by_scene.setdefault(row.scene, []).append(row.values[metric] - reference[row.pair])
    units = [*map(statistics.fmean, by_scene.values())] if len(by_scene) > 1 else sum(by_scene.values(), [])
    difference = Spread.of(units)
    if difference is None:
        return None
    n = len(units)
    if difference.deviation is None:
        return Difference(difference.mean, None, n)
    quantile = student_t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return Difference(difference.mean, float(quantile * difference.deviation / n**0.5), n)
