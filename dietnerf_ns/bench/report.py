"""One Markdown page with plots and tables, and the same numbers as JSON and CSV; from the result files alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from dietnerf_ns.bench.plots import draw_plots
from dietnerf_ns.bench.published import paper_tables
from dietnerf_ns.bench.summary import COST, METRICS, Metric, Results, over_seeds, paired_difference, read_results
from dietnerf_ns.bench.tables import NOTHING, difference_in_words, spread_in_words, table
from dietnerf_ns.utils.errors import make_folder
from dietnerf_ns.utils.files import write_json

REPORT = "report.md"


def write_report(folder: Path, *, to: Path | None = None, contact_sheet: bool = True) -> Path:
    """Write report.md, plots/, results.json and results.csv.

    Args:
        folder: of the results.
        to: where to write; into the folder of the results when None.
        contact_sheet: whether the report shows photos and renders.

    Returns:
        The report's path.

    Raises:
        UserError: there are no results in the folder, or the report cannot be written.
    """
    results, to = read_results(folder), to or folder
    make_folder(to, "--to")
    write_json(to / "results.json", as_json(results))
    write_csv(results, to / "results.csv")
    plots = draw_plots(results, to / "plots", contact_sheet=contact_sheet)
    pictures = [f"![{caption}]({path.relative_to(to)})\n\n{caption}\n" for caption, path in plots]
    sections = [f"# {results.name}\n", state(results), *pictures, *tables(results), *notes(results)]
    (to / REPORT).write_text("\n".join(sections))
    return to / REPORT


def as_json(results: Results) -> dict:
    """Everything, down to single images; learning curves stay in the cells' files."""
    cells = [
        {"id": row.id, "scene": row.scene, "views": row.views, "method": row.method, "seed": row.seed}
        | {name: value for name, value in row.result.items() if name != "curves"}
        for row in results.rows
    ]
    experiment = without_folders(results.experiment)
    return {"name": results.name, "experiment": experiment, "cells": cells, "pooled": results.pooled}


def without_folders(content: Any) -> Any:
    """The same settings, with files by their names alone: folders are of one machine."""
    if isinstance(content, dict):
        return {key: without_folders(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_folders(value) for value in content]
    return Path(content).name if isinstance(content, str) and Path(content).is_absolute() else content


def write_csv(results: Results, path: Path) -> None:
    """A line per finished cell: what it is, the means over its images, and what it cost."""
    names = list(dict.fromkeys(name for row in results.rows for name in row.values))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scene", "views", "method", "seed", *names])
        for row in results.rows:
            values = [row.values.get(name, "") for name in names]
            writer.writerow([row.scene, row.views, row.method, row.seed, *values])


def state(results: Results) -> str:
    """How much of the experiment is there, and on what it was evaluated."""
    split = {"test": "test frames", "val": "frames of the validation split"}[results.experiment["evaluate"]]
    images = sum(len(row.result["images"]) for row in results.rows)
    sizes = sorted({"x".join(map(str, row.result["resolution"])) for row in results.rows})
    return (
        f"{len(results.rows)} of {len(results.cells)} cells (scene x views x method x seed), {images} {split} at "
        f"{', '.join(sizes)} pixels.\n"
    )


def tables(results: Results) -> list[str]:
    """The sections of numbers."""
    sections = [
        "## Metrics as nerfstudio computes them\n",
        "Mean over the finished cells ± standard deviation of the seeds' means. SSIM with a Gaussian window, LPIPS "
        "with AlexNet; similarity: cosine of the embeddings of render and photo.\n",
        by_method(results, METRICS),
        *difference_sections(results),
    ]
    if len({cell["scene"] for cell in results.cells}) > 1:
        sections += ["## By scenes: PSNR (dB)\n", by_scene(results)]
    choices = list(dict.fromkeys(cell["views"] for cell in results.cells))
    for views in choices if len(choices) > 1 else ():
        part = results.only(views=views)
        sections += [f"## {views} alone\n", by_method(part, METRICS), *difference_sections(part, f", {views}")]
    return [
        *sections,
        *paper_tables(results),
        "## Cost\n",
        "Of the training loop, with nerfstudio's own evaluations in between.\n",
        by_method(results, COST),
    ]


def methods(results: Results) -> str:
    """What every label stands for."""
    rows = []
    for method in without_folders(results.experiment["methods"]):
        settings = results.experiment["overrides"] | method["overrides"]
        words = ", ".join(f"{name} {value}" for name, value in settings.items())
        rows.append([method["label"] or method["name"], method["name"], words or NOTHING])
    return table(["label", "method", "changed settings"], rows)


def by_method(results: Results, metrics: tuple[Metric, ...]) -> str:
    """A row per method, a column per metric."""
    rows = []
    for method in results.methods:
        cells, planned = results.of(method=method), [cell for cell in results.cells if cell["method"] == method]
        spreads = [spread_in_words(over_seeds(cells, metric.name), metric.digits) for metric in metrics]
        rows.append([method, f"{len(cells)} of {len(planned)}", *spreads])
    return table(["method", "cells", *(metric.title for metric in metrics)], rows)


def difference_sections(results: Results, where: str = "") -> list[str]:
    """Every method beside the baseline, and those that name another method beside that one."""
    others = [(method, results.baseline) for method in results.methods if method != results.baseline]
    labels = {method["label"] or method["name"]: method["against"] for method in results.experiment["methods"]}
    parts = [(label, against) for label, against in labels.items() if against]
    sections = [
        f"## Difference to {results.baseline}{where}\n",
        "Mean difference over the (scene, views, seed) that both have, and its 95 % Student-t confidence interval. n "
        "counts scenes, each with the mean of its differences; where both have one scene only, its (views, seed).\n",
        differences(results, others),
    ]
    if parts:
        sections += [f"## Difference that each part makes{where}\n", differences(results, parts)]
    return sections


def differences(results: Results, pairs: list[tuple[str, str]]) -> str:
    """A row per pair of a method and what it is compared with, a column per metric."""
    rows = []
    for method, reference in pairs:
        cells = results.of(method=method), results.of(method=reference)
        compared = [difference_in_words(paired_difference(*cells, metric.name), metric.digits) for metric in METRICS]
        rows.append([method, reference, *compared])
    return table(["method", "compared with", *(metric.title for metric in METRICS)], rows)


def by_scene(results: Results) -> str:
    """PSNR of every method on every scene."""
    metric = METRICS[0]
    scenes = list(dict.fromkeys(cell["scene"] for cell in results.cells))
    rows = [
        [method]
        + [
            spread_in_words(over_seeds(results.of(method=method, scene=scene), metric.name), metric.digits)
            for scene in scenes
        ]
        for method in results.methods
    ]
    return table(["method", *scenes], rows)


def notes(results: Results) -> list[str]:
    """What is missing and why, and the machines."""
    left_out = {}
    for row in results.rows:
        left_out |= row.result["left_out"]
    left_out |= results.pooled["left_out"]
    finished = {row.id for row in results.rows}
    missing = [cell["id"] for cell in results.cells if cell["id"] not in finished]
    machines = [dict(pairs) for pairs in dict.fromkeys(tuple(row.result["machine"].items()) for row in results.rows)]
    sections = []
    if missing:
        cells = "".join(f"- {name} (cells/{name}/log.txt)\n" for name in missing)
        sections += ["## Cells without a result\n", "Means above are over the other cells.\n", cells]
    if left_out:
        why = "urlopen error: a metric's weights could not be downloaded; docs/benchmark.md says where the files go.\n"
        sections += [
            "## Metrics left out\n",
            why,
            "".join(f"- {name}: {reason}\n" for name, reason in left_out.items()),
        ]
    keys = list(dict.fromkeys(key for machine in machines for key in machine))
    rows = [[str(machine.get(key, NOTHING)) for key in keys] for machine in machines]
    return [
        *sections,
        "## Methods\n",
        methods(results),
        "## Machine\n",
        table([key.replace("_", " ") for key in keys], rows),
    ]
