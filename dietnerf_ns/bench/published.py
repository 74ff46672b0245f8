"""Published numbers beside ours, by the metrics of the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files

import yaml

from dietnerf_ns.bench.summary import PAPER_METRICS, POOLED_METRICS, Results, Row, over_seeds
from dietnerf_ns.bench.tables import count, number, spread_in_words, table

EIGHT_SCENES = frozenset({"chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship"})
MEAN_OF_EIGHT = "mean of 8 scenes"
COLUMNS = (*PAPER_METRICS, *POOLED_METRICS)


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
    values: dict[str, list[float | None]] = field(default_factory=dict)
    """PSNR, SSIM, LPIPS, FID, KID by scene; the last ones may be missing."""

    def row(self, scene: str) -> list[str]:
        """A row of the table."""
        values = self.values[scene] + [None] * (len(COLUMNS) - len(self.values[scene]))
        numbers = [number(value, column.digits) for value, column in zip(values, COLUMNS, strict=True)]
        return [scene, self.method, *numbers, f"published; {self.convention}; {self.source}"]


def read_published() -> list[Published]:
    """The published numbers that come with the package."""
    return [Published(**entry) for entry in yaml.safe_load(files(__package__).joinpath("published.yaml").read_text())]


def paper_tables(results: Results) -> list[str]:
    """A section for each choice of views: our cells by the paper's metrics, and what is published for that protocol."""
    sections = []
    for views in dict.fromkeys(row.views for row in results.rows):
        rows = results.of(views=views)
        scenes = {place: _rows_of(place, rows) for place in _places(rows)}
        published = [entry for entry in read_published() if entry.protocol == views]
        theirs = {place: [entry.row(place) for entry in published if place in entry.values] for place in scenes}
        sections += [f"## Metrics as the paper computes them: {views}\n"]
        header = ["scene", "method", *(column.title for column in COLUMNS), "source"]
        ours = {place: _our_rows(results, views, place, of_place) for place, of_place in scenes.items()}
        why_not = _why_not_comparable(results, rows, published) if any(theirs.values()) else ""
        if why_not:
            sections += [table(header, sum(ours.values(), [])), f"**Not comparable with ours:** {why_not}\n"]
            sections += [table(header, sum(theirs.values(), []))]
        else:
            sections += [table(header, [row for place in scenes for row in ours[place] + theirs[place]])]
    return sections


def _places(rows: list[Row]) -> list[str]:
    scenes = list(dict.fromkeys(row.scene for row in rows))
    if len(scenes) == 1:
        return scenes
    return [MEAN_OF_EIGHT if set(scenes) == EIGHT_SCENES else f"mean of {len(scenes)} scenes", *scenes]


def _rows_of(place: str, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.scene == place] or rows


def _our_rows(results: Results, views: str, place: str, rows: list[Row]) -> list[list[str]]:
    whole_pool = len(rows) == len(results.of(views=views))
    lines = []
    for method in results.methods:
        cells = [row for row in rows if row.method == method]
        if cells:
            numbers = [spread_in_words(over_seeds(cells, column.name), column.digits) for column in PAPER_METRICS]
            pool = _pool(results, views, method) if whole_pool else {}
            numbers += [number(pool.get(column.name), column.digits) for column in POOLED_METRICS]
            lines.append([place, f"**{method}**", *numbers, f"this run, {count(len(cells), 'cell')}"])
    return lines


def _pool(results: Results, views: str, method: str) -> dict:
    pools = results.pooled["pools"]
    return next((pool for pool in pools if (pool["views"], pool["method"]) == (views, method)), {})


def _why_not_comparable(results: Results, rows: list[Row], published: list[Published]) -> str:
    ours = {tuple(row.result["resolution"]) for row in rows}
    theirs = {tuple(entry.resolution) for entry in published}
    in_words = [" and ".join(sorted("x".join(map(str, size)) for size in sizes)) for sizes in (theirs, ours)]
    if ours != theirs:
        return f"published at {in_words[0]} pixels, this run is at {in_words[1]}."
    if results.experiment["evaluate"] != "test":
        return "published for test frames, this run evaluates the validation split."
    return ""
