"""Published numbers beside ours, by the metrics of the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from importlib.resources import files

import yaml

from dietnerf_ns.bench.summary import PAPER_METRICS, POOLED_METRICS, Metric, Results, Row, over_seeds
from dietnerf_ns.bench.tables import NOTHING, count, number, spread_in_words, table

EIGHT_SCENES = frozenset({"chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship"})
MEAN_OF_EIGHT = "mean of 8 scenes"
COLUMNS = (*PAPER_METRICS, *POOLED_METRICS)
HEADER = ["scene", "method", *(column.title for column in COLUMNS), "source", "what differs"]


@dataclass(frozen=True)
class Published:
    """What a source says of one method."""

    method: str
    protocol: str
    resolution: list[int]
    """Width and height in pixels."""
    convention: str
    """How SSIM and LPIPS were computed."""
    source: str
    values: dict[str, list[Decimal | None]] = field(default_factory=dict)
    """PSNR, SSIM, LPIPS, FID, KID by scene; the last ones may be missing."""
    differs: str = ""
    """What is not as in the protocol, so that the numbers are not comparable."""

    def row(self, scene: str) -> list[str]:
        """A row of the table."""
        values = self.values[scene] + [None] * (len(COLUMNS) - len(self.values[scene]))
        numbers = [number(value, known_digits(value, column)) for value, column in zip(values, COLUMNS, strict=True)]
        source = f"published; {self.convention}; {self.source}"
        return [scene, self.method, *numbers, source, self.differs or NOTHING]


def known_digits(value: Decimal | None, column: Metric) -> int:
    """So many digits of a published number are shown: the column's, but none that its source does not have."""
    return column.digits if value is None else min(column.digits, -value.as_tuple().exponent)


class NumbersAsWritten(yaml.SafeLoader):
    """Reads numbers with a decimal point as `Decimal`, which knows how many digits were written."""


NumbersAsWritten.add_constructor("tag:yaml.org,2002:float", lambda loader, node: Decimal(node.value))


def read_published() -> list[Published]:
    """The published numbers that come with the package."""
    text = files(__package__).joinpath("published.yaml").read_text()
    return [Published(**entry) for entry in yaml.load(text, NumbersAsWritten)]


def paper_tables(results: Results) -> list[str]:
    """A section for each choice of views: our cells by the paper's metrics, and what is published for that protocol."""
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
    apart = [row for row in theirs if row[-1] != NOTHING]
    theirs = [row for row in theirs if row[-1] == NOTHING]
    why_not = _why_not_comparable(part, published) if theirs else ""
    if why_not:
        tables = [table(HEADER, ours), f"**Not comparable with ours:** {why_not}\n", table(HEADER, theirs)]
    else:
        tables = [table(HEADER, sorted(ours + theirs, key=lambda row: places.index(row[0])))]
    return tables + (["**Not comparable, for the protocol differs:**\n", table(HEADER, apart)] if apart else [])


def _our_rows(part: Results, views: str) -> list[list[str]]:
    """Each method's mean over several scenes, then its scenes; FID and KID belong to all its cells together."""
    means, scenes = [], []
    for method in part.methods:
        rows, pool = part.of(method=method), _pool(part, views, method)
        names = dict.fromkeys(row.scene for row in rows)
        if len(names) > 1:
            means.append(_our_row(_mean_label(part, method), rows, pool))
        scenes += [
            _our_row(name, part.of(method=method, scene=name), pool if len(names) == 1 else {}) for name in names
        ]
    order = list(dict.fromkeys(cell["scene"] for cell in part.cells))
    return means + sorted(scenes, key=lambda row: order.index(row[0]))


def _mean_label(part: Results, method: str) -> str:
    """That of the published means only if the method has all its cells of the eight scenes."""
    planned, finished = part.only(method=method).cells, part.of(method=method)
    scenes = list(dict.fromkeys(row.scene for row in finished))
    unfinished = "unfinished " if len(finished) < len(planned) else ""
    if set(scenes) == EIGHT_SCENES and not unfinished:
        return MEAN_OF_EIGHT
    return f"{unfinished}mean of {len(scenes)} scenes: {', '.join(scenes)}"


def _our_row(place: str, rows: list[Row], pool: dict) -> list[str]:
    """A row of the table; a metric that some of the cells lack is not shown, for its mean would be another one's."""
    shown = [metric for metric in PAPER_METRICS if all(metric.name in row.values for row in rows)]
    spreads = {metric: over_seeds(rows, metric.name) for metric in shown}
    numbers = [spread_in_words(spreads.get(metric), metric.digits) for metric in PAPER_METRICS]
    numbers += [number(pool.get(metric.name), metric.digits) for metric in POOLED_METRICS]
    return [place, f"**{rows[0].method}**", *numbers, f"this run, {count(len(rows), 'cell')}", NOTHING]


def _pool(part: Results, views: str, method: str) -> dict:
    """FID and KID, unless cells have been finished since."""
    renders = sum(len(row.result["images"]) for row in part.of(method=method))
    wanted = {"views": views, "method": method, "renders": renders}
    return next((pool for pool in part.pooled["pools"] if wanted.items() <= pool.items()), {})


def _why_not_comparable(part: Results, published: list[Published]) -> str:
    ours = {tuple(row.result["resolution"]) for row in part.rows}
    theirs = {tuple(entry.resolution) for entry in published}
    in_words = [" and ".join(sorted("x".join(map(str, size)) for size in sizes)) for sizes in (theirs, ours)]
    if ours != theirs:
        return f"published at {in_words[0]} pixels, this run is at {in_words[1]}."
    if part.experiment["evaluate"] != "test":
        return "published for test frames, this run evaluates the validation split."
    return ""
