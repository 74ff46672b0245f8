"""Statistics over cells: means, standard deviations over seeds, paired differences. It reads result files only."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, BaseModel, ConfigDict, Strict, TypeAdapter, ValidationError
from scipy.stats import t as student_t

from dietnerf_ns.bench.cell import ABOUT_THE_IMAGE, CELLS, DEGREES, RESULT
from dietnerf_ns.utils.errors import READ_ERRORS, UserError, in_one_line

EXPERIMENT = "experiment.json"
FID_KID = "pooled.json"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metric:
    """A metric and how it is shown."""

    name: str
    """`convention/metric`, as in the result files."""
    title: str
    digits: int


METRICS = (
    Metric("nerfstudio/psnr", "PSNR (dB)", 2),
    Metric("nerfstudio/ssim", "SSIM", 3),
    Metric("nerfstudio/lpips", "LPIPS (Alex)", 3),
    Metric("perceptual/st-lpips", "ST-LPIPS", 4),
    Metric("semantic/similarity", "similarity", 3),
    Metric("semantic/similarity-lite2", "similarity (Lite2)", 3),
)
PAPER_METRICS = (
    Metric("paper/psnr", "PSNR (dB)", 2),
    Metric("paper/ssim", "SSIM", 3),
    Metric("paper/lpips", "LPIPS (VGG, not rescaled)", 3),
)
FID_KID_METRICS = (Metric("paper/fid", "FID", 1), Metric("paper/kid", "KID", 4))
COST = (
    Metric("training/seconds", "training (s)", 0),
    Metric("training/steps_per_second", "steps/s", 1),
    Metric("training/peak_memory_mib", "peak memory (MiB)", 0),
    Metric("training/peak_gpu_memory_mib", "peak GPU memory by torch (MiB)", 0),
)
LIMITED_TIME = (
    Metric("training/step_seconds", "time of the steps (s)", 1),
    Metric("training/steps", "steps", 0),
    Metric("training/configured_steps", "steps configured", 0),
)


OTHER_KEYS = ConfigDict(extra="ignore")
"""The report reads a part of what the benchmark writes."""
Number = Annotated[float, Strict(), AllowInfNan(True)]


@dataclass
class CellEntry:
    """A cell in `experiment.json`; see `dietnerf_ns.bench.cell.Cell`."""

    __pydantic_config__ = OTHER_KEYS

    id: str
    scene: str
    views: str
    method: str
    seed: int


IDENTITY = tuple(entry.name for entry in fields(CellEntry))


@dataclass
class MethodEntry:
    """A method in `experiment.json`; see `dietnerf_ns.bench.experiment.Method`."""

    __pydantic_config__ = OTHER_KEYS

    name: str
    label: str
    overrides: dict[str, Any]
    against: str


@dataclass
class SettingsEntry:
    """What the report shows of `dietnerf_ns.bench.experiment.Experiment`."""

    __pydantic_config__ = OTHER_KEYS

    evaluate: Literal["test", "val"]
    methods: list[MethodEntry]
    overrides: dict[str, Any]
    seconds: Number | None = None
    unseen_from: Number | None = None


@dataclass
class ExperimentFile:
    """Content of `experiment.json`."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    baseline: str
    experiment: SettingsEntry
    cells: list[CellEntry]


class ImageEntry(BaseModel, extra="allow"):
    """An evaluated image in a result: its name, its metrics, and its angle to the nearest photo if it has one."""

    __pydantic_extra__: dict[str, Number]
    name: str


@dataclass
class ResultFile:
    """What the report reads of a cell's `result.json`."""

    resolution: tuple[int, int]
    images: list[ImageEntry]
    metrics: dict[str, Number]
    left_out: dict[str, str]
    training: dict[str, Number]
    machine: dict[str, str | float | bool | None]
    training_views: int | None = None
    mean_colour: Number | None = None
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


@dataclass
class PoolEntry:
    """The pooled images of a method, a choice of views and a seed."""

    views: str
    method: str
    cells: list[str]
    """Ids of the cells."""


@dataclass
class PooledFile:
    """Content of `pooled.json`."""

    pools: list[PoolEntry]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Row:
    """One finished cell."""

    id: str
    scene: str
    views: str
    method: str
    seed: int
    values: Mapping[str, float]
    """Means over the cell's images and the cost of training, by the names of the metrics."""
    result: Mapping[str, Any]
    """The cell's whole result file."""
    folder: Path | None
    """The cell's folder with `photos/` and `renders/`; None if the cell comes from a report's `results.json`."""

    @property
    def training_views(self) -> int | None:
        """Number of photos trained on; None in results of versions that did not count them."""
        return self.result.get("training_views")

    @property
    def pair(self) -> tuple[str, str, int]:
        """The scene, views and seed that two cells of different methods must share to be compared."""
        return self.scene, self.views, self.seed


@dataclass(frozen=True)
class Results:
    """An experiment and the results that exist so far."""

    name: str
    baseline: str
    experiment: Mapping[str, Any]
    cells: list[Mapping[str, Any]]
    """All cells, finished or not, in the order of the report."""
    rows: list[Row]
    """The finished cells."""
    fid_kid: Mapping[str, Any]
    """What `fid_kid_of_methods` returned."""

    @property
    def methods(self) -> list[str]:
        """Labels of the methods in the order of the report."""
        return list(dict.fromkeys(cell["method"] for cell in self.cells))

    def only(self, **wanted: Any) -> Results:
        """The same experiment with only the cells that have these values."""
        cells = [cell for cell in self.cells if all(cell[name] == value for name, value in wanted.items())]
        return replace(self, cells=cells, rows=self.of(**wanted))

    def of(self, **wanted: Any) -> list[Row]:
        """The finished cells that have these values, such as `method="nerfacto"`."""
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())]


def unseen_images(row: Row, degrees: float) -> list[Mapping[str, Any]]:
    """The evaluated images of a cell that are at least so many degrees away from every photo.

    Results of versions that did not store the angle have no such images.
    """
    return [image for image in row.result["images"] if image.get(DEGREES, -1) >= degrees]


def of_unseen_images(results: Results, degrees: float) -> Results:
    """The same experiment with the metrics' means over `unseen_images`. Cells without such images count as unfinished.

    As in the means over all images, a metric that some image lacks, or that is not finite, is left out.
    """
    rows = []
    for row in results.rows:
        images = unseen_images(row, degrees)
        names = [name for name in (images[0] if images else ()) if name not in ABOUT_THE_IMAGE]
        common = [name for name in names if all(math.isfinite(image.get(name, math.nan)) for image in images)]
        if images:
            values = {name: statistics.fmean(image[name] for image in images) for name in common}
            rows.append(replace(row, values=values))
    return replace(results, rows=rows)


def read_results(folder: Path) -> Results:
    """Read the results folder of `dietnerf-bench run`.

    Raises:
        UserError: the folder contains no experiment, none of its cells is finished, or a file is damaged.
    """
    if not (folder / EXPERIMENT).is_file():
        raise UserError(
            f"{folder}: no results here ({EXPERIMENT} is missing); give the --out folder of `dietnerf-bench run`."
        )
    description = read_checked_json(folder / EXPERIMENT, ExperimentFile)
    rows = []
    for cell in description["cells"]:
        if Path(cell["id"]).name != cell["id"] or cell["id"] in ("", ".."):
            raise UserError(f"{folder / EXPERIMENT}: the cell {cell['id']!r} is not the name of a folder.")
        files = folder / CELLS / cell["id"]
        if (files / RESULT).is_file():
            rows.append(as_row(cell, read_checked_json(files / RESULT, ResultFile), files))
    if not rows:
        raise UserError(f"{folder}: none of the {len(description['cells'])} cells is finished; nothing to report.")
    file = folder / FID_KID
    fid_kid = read_checked_json(file, PooledFile) if file.is_file() else {"pools": [], "left_out": {}}
    return Results(**description, rows=rows, fid_kid=fid_kid)


def read_checked_json(file: Path, kind: type) -> dict[str, Any]:
    """Read a file that the benchmark wrote.

    Raises:
        UserError: it is damaged; the message has the place in the file.
    """
    try:
        content = json.loads(file.read_text())
        TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: this is no result of dietnerf-bench: {where}: {first['msg']}.") from error
    except READ_ERRORS as error:
        raise UserError(f"{file}: this file is damaged: {in_one_line(error)}") from error
    return content


def as_row(cell: Mapping[str, Any], result: Mapping[str, Any], folder: Path | None) -> Row:
    """A finished cell. Values that are not finite, which have no mean, are left out with this reason.

    Args:
        cell: its identity, with the fields of `CellEntry`.
        result: its result, with the fields of `ResultFile`.
        folder: its folder, if its images are at hand.
    """
    values = result["metrics"] | {f"training/{name}": value for name, value in result["training"].items()}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    left_out = result["left_out"] | {name: f"{values[name]} in {cell['id']}" for name in values.keys() - finite.keys()}
    identity = {name: cell[name] for name in IDENTITY}
    return Row(**identity, values=finite, result={**result, "left_out": left_out}, folder=folder)


@dataclass(frozen=True)
class Spread:
    """Mean of some values and, for at least two values, their standard deviation (with n - 1)."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """The spread of the values, or None if there are none."""
        values = list(values)
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def over_seeds(rows: Iterable[Row], metric: str) -> Spread | None:
    """Mean over the cells and standard deviation of the seeds' means; None if a cell lacks the metric.

    Each (scene, views) counts once in the mean, with the mean of its seeds. The deviation is over the seeds that have
    the same (scene, views) as the most complete seed. Other seeds are left out of it because scenes differ more than
    seeds do.
    """
    by_seed: dict[int, dict[tuple[str, str], float]] = {}
    by_place: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if metric not in row.values:
            return None  # the mean would be over other cells than those of other methods and metrics
        by_seed.setdefault(row.seed, {})[row.scene, row.views] = row.values[metric]
        by_place.setdefault((row.scene, row.views), []).append(row.values[metric])
    if not by_seed:
        return None
    most = max(by_seed.values(), key=len).keys()
    complete = Spread.of(statistics.fmean(values.values()) for values in by_seed.values() if values.keys() == most)
    mean = statistics.fmean(map(statistics.fmean, by_place.values()))
    return Spread(mean, complete.deviation if complete is not None else None)


@dataclass(frozen=True)
class Difference:
    """Mean paired difference and its confidence interval."""

    mean: float
    half_width: float | None
    """Half the width of the 95 % Student-t interval; None for a single unit."""
    n: int
    """Number of independent units: the scenes, or the pairs if all belong to one scene."""
    pairs: int
    """Number of pairs of cells."""


def paired_difference(rows: Iterable[Row], baseline: Iterable[Row], metric: str) -> Difference | None:
    """Mean difference from the baseline over the (scene, views, seed) that both have; None if there is no such pair.

    Pairs of one scene are not independent. With several scenes each scene is one unit, the mean of its differences.

    Args:
        rows: cells of a method.
        baseline: cells of the method that is subtracted.
        metric: name of the metric, as in the result files.
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
    n, pairs = len(units), sum(map(len, by_scene.values()))
    if difference.deviation is None:
        return Difference(difference.mean, None, n, pairs)
    quantile = student_t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return Difference(difference.mean, float(quantile * difference.deviation / n**0.5), n, pairs)
