"""Tables of our numbers beside published ones, in the paper's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from dietnerf_ns.bench.summary import FID_KID_METRICS, PAPER_METRICS, Metric, Results, Row, Spread, over_seeds
from dietnerf_ns.bench.tables import NOTHING, count, format_number, format_spread, table
from dietnerf_ns.data.protocols import PROTOCOLS, departure_in_evaluation

EIGHT_SCENES = frozenset({"chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship"})
MEAN_OF_EIGHT = "mean of 8 scenes"
COLUMNS = (*PAPER_METRICS, *FID_KID_METRICS)
HEADER = ["scene", "method", *(column.title for column in COLUMNS), "source", "what differs"]


@dataclass(frozen=True)
class Published:
    """The numbers of one method in one source."""

    method: str
    protocol: str
    resolution: list[int]
    """Width and height in pixels."""
    convention: str
    """How SSIM and LPIPS were computed."""
    source: str
    """Where the numbers were published."""
    values: dict[str, list[Decimal | None]] = field(default_factory=dict)
    """PSNR, SSIM, LPIPS, FID and KID of each scene. A list may be shorter, and values may be None."""
    differs: str = ""
    """How the source deviates from the protocol. Such numbers are not comparable."""

    def row(self, scene: str) -> list[str]:
        """The row of a scene, with the columns of `HEADER`."""
        values = self.values[scene] + [None] * (len(COLUMNS) - len(self.values[scene]))
        numbers = [
            format_number(value, known_digits(value, column)) for value, column in zip(values, COLUMNS, strict=True)
        ]
        source = f"published; {self.convention}; {self.source}"
        return [scene, self.method, *numbers, source, self.differs or NOTHING]


def known_digits(value: Decimal | None, column: Metric) -> int:
    """Number of digits to show: those of the column, but not more than the source has."""
    if value is None:
        return column.digits
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), f"{value} is no number"
    return min(column.digits, -exponent)


class NumbersAsWritten(yaml.SafeLoader):
    """Reads numbers with a decimal point as `Decimal`, which keeps the number of digits that were written."""


NumbersAsWritten.add_constructor("tag:yaml.org,2002:float", lambda loader, node: Decimal(node.value))


def read_published() -> list[Published]:
    """Read the published numbers that come with the package."""
    text = files("dietnerf_ns.bench").joinpath("published.yaml").read_text()
    return [Published(**entry) for entry in yaml.load(text, NumbersAsWritten)]


def paper_tables(results: Results) -> list[str]:
    """Markdown sections, one for each choice of views: our cells in the paper's metrics, and the published numbers."""
    sections = []
    for views in dict.fromkeys(row.views for row in results.rows):
        part = results.only(views=views)
        sections += [f"## Metrics as the paper computes them: {views}\n", *_tables_of(part, views)]
    return sections


def _tables_of(part: Results, views: str) -> list[str]:
    ours = _our_rows(part, views)
    places = list(dict.fromkeys(row[0] for row in ours))
    published = [entry for entry in read_published() if entry.protocol == views]
    theirs = [entry.row(place) for place in places for entry in published if place in entry.values]
    other_protocols = [row for row in theirs if row[-1] != NOTHING]
    theirs = [row for row in theirs if row[-1] == NOTHING]
    why_not = _why_not_comparable(part, published) if theirs else ""
    if why_not:
        tables = [table(HEADER, ours), f"**Not comparable with ours:** {why_not}\n", table(HEADER, theirs)]
    else:
        tables = [table(HEADER, sorted(ours + theirs, key=lambda row: places.index(row[0])))]
    if other_protocols:
        tables += ["**Not comparable because the protocol differs:**\n", table(HEADER, other_protocols)]
    return tables


def _our_rows(part: Results, views: str) -> list[list[str]]:
    """Means over the scenes first, then single scenes. FID and KID exist only for all cells of a method together."""
    means, scenes = [], []
    for method in part.methods:
        rows, fid_kid = part.of(method=method), _fid_kid_of(part, views, method)
        names = dict.fromkeys(row.scene for row in rows)
        if len(names) > 1:
            means.append(_our_row(_mean_label(part, method), rows, fid_kid))
        scenes += [
            _our_row(name, part.of(method=method, scene=name), fid_kid if len(names) == 1 else {}) for name in names
        ]
    order = list(dict.fromkeys(cell["scene"] for cell in part.cells))
    return means + sorted(scenes, key=lambda row: order.index(row[0]))


def _mean_label(part: Results, method: str) -> str:
    """The label of the published means, but only if all the method's cells of the eight scenes are finished."""
    planned, finished = part.only(method=method).cells, part.of(method=method)
    scenes = list(dict.fromkeys(row.scene for row in finished))
    unfinished = "unfinished " if len(finished) < len(planned) else ""
    if set(scenes) == EIGHT_SCENES and not unfinished:
        return MEAN_OF_EIGHT
    return f"{unfinished}mean of {len(scenes)} scenes: {', '.join(scenes)}"


def _our_row(place: str, rows: list[Row], fid_kid: dict[str, Spread | None]) -> list[str]:
    """A row of the table."""
    numbers = [format_spread(over_seeds(rows, metric.name), metric.digits) for metric in PAPER_METRICS]
    numbers += [format_spread(fid_kid.get(metric.name), metric.digits) for metric in FID_KID_METRICS]
    return [place, f"**{rows[0].method}**", *numbers, f"this run, {count(len(rows), 'cell')}", NOTHING]


def _fid_kid_of(part: Results, views: str, method: str) -> dict[str, Spread | None]:
    """FID and KID of a method over its seeds; none unless each seed has one pool, of all its cells of all scenes.

    Both depend on the images that are pooled: a mean over pools of different scenes is the FID of nothing.
    """
    pools = [entry for entry in part.fid_kid["pools"] if (entry["views"], entry["method"]) == (views, method)]
    rows = {row.id: row for row in part.of(method=method)}
    if sorted(name for entry in pools for name in entry["cells"]) != sorted(rows):
        return {}  # of other cells than those finished now
    members = [[rows[name] for name in entry["cells"]] for entry in pools]
    if len({frozenset(row.scene for row in group) for group in members}) != 1:
        return {}
    return {metric.name: Spread.of(entry[metric.name] for entry in pools) for metric in FID_KID_METRICS}


def _why_not_comparable(part: Results, published: list[Published]) -> str:
    ours = {tuple(row.result["resolution"]) for row in part.rows}
    theirs = {tuple(entry.resolution) for entry in published}
    published_sizes, our_sizes = (
        " and ".join(sorted("x".join(map(str, size)) for size in sizes)) for sizes in (theirs, ours)
    )
    if ours != theirs:
        return f"published at {published_sizes} pixels, this run is at {our_sizes}."
    coloured = [scene["name"] for scene in part.experiment.get("scenes", ()) if _is_not_on_white(scene)]
    if coloured:
        return f"published on white, this run has another alpha-color for {', '.join(coloured)}."
    if part.experiment["evaluate"] != "test":
        return "published for test frames, this run evaluates the validation split."
    expected = len(PROTOCOLS[published[0].protocol].train_indices)
    numbers = {row.training_views for row in part.rows if row.training_views not in (None, expected)}
    if numbers:
        return f"cells of this run were trained on {' and '.join(sorted(map(str, numbers)))} photos."
    evaluated = ([Path(image["name"]) for image in row.result["images"]] for row in part.rows)
    departures = (departure_in_evaluation(images, published[0].protocol) for images in evaluated)
    return next(filter(None, departures), "")


def _is_not_on_white(scene: Mapping[str, Any]) -> bool:
    arguments = {name.replace("_", "-"): value for name, value in scene.get("arguments", {}).items()}
    return arguments.get("alpha-color", "white") != "white"
