"""The report: a Markdown page with plots and tables, and the same numbers as JSON and CSV. Reads result files only."""

from __future__ import annotations

import csv
from pathlib import Path

from dietnerf_ns.bench.cell import AS_IS, AS_IS_MEANS
from dietnerf_ns.bench.joined import read_joined
from dietnerf_ns.bench.plots import draw_plots
from dietnerf_ns.bench.published import paper_tables
from dietnerf_ns.bench.stored import STORED, as_json, without_folders
from dietnerf_ns.bench.summary import (
    COST,
    EXPERIMENT,
    LIMITED_TIME,
    METRICS,
    Metric,
    Results,
    Row,
    of_unseen_images,
    over_seeds,
    paired_difference,
    unseen_images,
)
from dietnerf_ns.bench.tables import NOTHING, format_difference, format_spread, table
from dietnerf_ns.utils.errors import make_folder
from dietnerf_ns.utils.files import write_json

REPORT = "report.md"
SAME_PSNR = 0.01
"""Difference in dB that rounding makes, and to spare."""
SAME_COLOUR = 1e-3
"""Difference of mean colours in [0, 1] that rounding on another device can make, but no other background."""


def write_report(*folders: Path, to: Path | None = None, contact_sheet: bool = True) -> Path:
    """Write report.md, plots/, results.json and results.csv.

    Args:
        folders: folders with results of one experiment or of parts of it; see `read_joined`.
        to: folder that the report is written to; None for the first folder.
        contact_sheet: whether the report shows photos and renders.

    Returns:
        Path of report.md.

    Raises:
        UserError: a folder contains no results, they do not belong together, or the report cannot be written.
    """
    results, to = read_joined(folders), to or folders[0]
    make_folder(to, "--to")
    write_json(to / STORED, as_json(results))
    write_csv(results, to / "results.csv")
    rewritten = len(folders) == 1 and to.resolve() == folders[0].resolve() and not (to / EXPERIMENT).is_file()
    plots = draw_plots(results, to / "plots", contact_sheet=contact_sheet, same_cells=rewritten)
    images = [f"![{caption}]({path.relative_to(to)})\n\n{caption}\n" for caption, path in plots]
    sections = [
        f"# {results.name}\n",
        progress(results),
        *warnings(results),
        *images,
        *tables(results),
        *notes(results),
    ]
    (to / REPORT).write_text("\n".join(sections))
    return to / REPORT


def write_csv(results: Results, path: Path) -> None:
    """Write one line per finished cell: its identity, the means over its images and the cost of training."""
    names = list(dict.fromkeys(name for row in results.rows for name in row.values))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scene", "views", "method", "seed", *names])
        for row in results.rows:
            values = [row.values.get(name, "") for name in names]
            writer.writerow([row.scene, row.views, row.method, row.seed, *values])


def progress(results: Results) -> str:
    """How many cells are finished, and which images they were evaluated on."""
    split = {"test": "test frames", "val": "frames of the validation split"}[results.experiment["evaluate"]]
    images = sum(len(row.result["images"]) for row in results.rows)
    sizes = sorted({"x".join(map(str, row.result["resolution"])) for row in results.rows})
    return (
        f"{len(results.rows)} of {len(results.cells)} cells (scene x views x method x seed), {images} {split} at "
        f"{', '.join(sizes)} pixels.\n"
    )


def warnings(results: Results) -> list[str]:
    """Paragraphs on what a reader of the numbers must know first, otherwise nothing."""
    return [
        *_read_as_they_are(results),
        *_other_renders(results),
        *_other_pictures(results),
        *_other_machines(results),
    ]


def _read_as_they_are(results: Results) -> list[str]:
    scenes = dict.fromkeys(cell["scene"] for cell in results.cells if cell["views"] == AS_IS)
    return [f"**Read as they are: {', '.join(scenes)}.** {AS_IS_MEANS}\n"] if scenes else []


def _other_renders(results: Results) -> list[str]:
    """A paragraph for each method whose own PSNR is not that of the images which the benchmark took from it."""
    differences: dict[str, float] = {}
    for row in results.rows:
        for image in row.result["images"]:
            if "nerfstudio/psnr" in image and "paper/psnr" in image:
                difference = abs(image["nerfstudio/psnr"] - image["paper/psnr"])
                differences[row.method] = max(differences.get(row.method, 0), difference)  # the first, if one is NaN
    return [
        f"**Check the metrics of {method}.** The PSNR that the model computes and the one that the benchmark computes "
        f"differ by up to {difference:.2f} dB in an image. The benchmark takes the photo from the left and the render "
        "from the right end of the model's `img`, with values in [0, 1]; if something else is there, only the metrics "
        "as nerfstudio computes them are right.\n"
        for method, difference in differences.items()
        if difference > SAME_PSNR
    ]


def _other_pictures(results: Results) -> list[str]:
    """A paragraph for each scene and views whose cells were not trained and evaluated on the same pictures."""
    first_cells = {(row.scene, row.views): row for row in reversed(results.rows)}
    found: dict[tuple[str, str], str] = {}
    for row in results.rows:
        place, other = (row.scene, row.views), first_cells[row.scene, row.views]
        difference = difference_of_images(other, row)
        if difference is not None and place not in found:
            found[place] = (
                f"**Not comparable: {row.scene}, {row.views}.** `{other.id}` and `{row.id}` were evaluated "
                f"{difference}.\n"
            )
    return list(found.values())


def _other_machines(results: Results) -> list[str]:
    """A paragraph on which methods ran on which machines and versions, if not all on the same."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in results.rows:
        for key, value in row.result["machine"].items():
            found.setdefault(key, {}).setdefault(str(value), []).append(row.method)
    different = [
        f"{key.replace('_', ' ')}: "
        + ", ".join(f"{value} ({'; '.join(dict.fromkeys(methods))})" for value, methods in values.items())
        for key, values in found.items()
        if len(values) > 1
    ]
    if not different:
        return []
    limited = results.experiment.get("seconds") is not None
    numbers = "Neither times nor results in equal time are" if limited else "Times are not"
    return [f"**Different machines or versions.** {numbers} comparable between them. {'. '.join(different)}.\n"]


def difference_of_images(one: Row, other: Row) -> str | None:
    """In what photos and evaluated images of two cells of the same scene and views differ; None if in nothing."""
    first, second = one.result, other.result
    if None not in (one.training_views, other.training_views) and one.training_views != other.training_views:
        return f"after training on different numbers of photos ({one.training_views} and {other.training_views})"
    if sorted(image["name"] for image in first["images"]) != sorted(image["name"] for image in second["images"]):
        return f"on different images ({len(first['images'])} and {len(second['images'])})"
    if tuple(first["resolution"]) != tuple(second["resolution"]):
        return "at different sizes"
    ours, theirs = first.get("mean_colour"), second.get("mean_colour")
    if ours is not None and theirs is not None and abs(ours - theirs) > SAME_COLOUR:
        return (
            f"on photos of different colours (mean {ours:.3f} and {theirs:.3f}). Methods put transparent "
            "photos on different backgrounds unless all have the same, such as `pipeline.model.background-color: "
            "white`, and those that rasterise undistort photos"
        )
    return None


def tables(results: Results) -> list[str]:
    """The Markdown sections with numbers."""
    sections = [
        "## Metrics as nerfstudio computes them\n",
        "Mean over the finished cells, in which each (scene, views) counts once, ± standard deviation of the seeds' "
        f"means; {NOTHING} if a cell lacks the metric. SSIM with a Gaussian window, LPIPS with AlexNet; ST-LPIPS has a "
        "scale of its own; similarity: cosine of the embeddings of render and photo.\n",
        by_method(results, METRICS),
        *difference_sections(results),
    ]
    if len({cell["scene"] for cell in results.cells}) > 1:
        sections += ["## PSNR (dB) by scene\n", by_scene(results)]
    choices = list(dict.fromkeys(cell["views"] for cell in results.cells))
    for views in choices if len(choices) > 1 else ():
        part = results.only(views=views)
        sections += [f"## Only {views}\n", by_method(part, METRICS), *difference_sections(part, f", {views}")]
    return [
        *sections,
        *unseen_views(results),
        *limited_time(results),
        *paper_tables(results),
        "## Cost\n",
        "The training loop, including nerfstudio's own evaluations during training.\n",
        by_method(results, COST),
    ]


def unseen_views(results: Results) -> list[str]:
    """Metrics of the evaluated views that are far from all photos if the experiment asks for it, otherwise nothing."""
    degrees = results.experiment.get("unseen_from")
    if degrees is None:
        return []
    first_cells = {(row.scene, row.views): row for row in reversed(results.rows)}
    counts = [
        [*place, str(len(unseen_images(row, degrees))), str(len(row.result["images"]))]
        for place, row in reversed(first_cells.items())
    ]
    where = f", {degrees:g} degrees and more from every photo"
    part = of_unseen_images(results, degrees)
    return [
        f"## Views {degrees:g} degrees and more from every photo\n",
        "Only the evaluated views whose viewing directions are so far from those of all training views. A cell without "
        "such views, or from a version that did not store the angles, does not count.\n",
        table(["scene", "views", "so far", "evaluated"], counts),
        by_method(part, METRICS),
        *difference_sections(part, where),
    ]


def limited_time(results: Results) -> list[str]:
    """The steps that each method did if the time per cell was limited, otherwise nothing."""
    seconds = results.experiment.get("seconds")
    if seconds is None:
        return []
    return [
        "## Steps in equal time\n",
        f"Training ended when its steps had taken {seconds:g} s, or when the configured steps were done. Loading and "
        "evaluation do not count.\n",
        by_method(results, LIMITED_TIME),
    ]


def methods(results: Results) -> str:
    """The method and the changed settings behind every label."""
    rows = []
    for method in without_folders(results.experiment["methods"]):
        settings = results.experiment["overrides"] | method["overrides"]
        changed = ", ".join(f"{name} {value}" for name, value in settings.items())
        rows.append([method["label"] or method["name"], method["name"], changed or NOTHING])
    return table(["label", "method", "changed settings"], rows)


def by_method(results: Results, metrics: tuple[Metric, ...]) -> str:
    """A table with one row per method and one column per metric."""
    rows = []
    for method in results.methods:
        cells, planned = results.of(method=method), [cell for cell in results.cells if cell["method"] == method]
        spreads = [format_spread(over_seeds(cells, metric.name), metric.digits) for metric in metrics]
        rows.append([method, f"{len(cells)} of {len(planned)}", *spreads])
    return table(["method", "cells", *(metric.title for metric in metrics)], rows)


def difference_sections(results: Results, where: str = "") -> list[str]:
    """Differences of every method from the baseline, and from the method that its `against` names. None of one alone.

    Args:
        results: the cells to compare.
        where: end of the headings, for results that are a part of the experiment.
    """
    others = [(method, results.baseline) for method in results.methods if method != results.baseline]
    labels = {method["label"] or method["name"]: method["against"] for method in results.experiment["methods"]}
    parts = [(label, against) for label, against in labels.items() if against]
    if not others:
        return []
    sections = [
        f"## Difference from {results.baseline}{where}\n",
        "Mean difference over the (scene, views, seed) that both methods have, with its 95 % Student-t confidence "
        "interval. n is the number of scenes, each of which counts with the mean of its differences; the number of "
        "pairs is that of the cells compared. If both methods have only one scene, n is the number of its (views, "
        "seed).\n",
        differences(results, others),
    ]
    if parts:
        sections += [f"## Effect of each component{where}\n", differences(results, parts)]
    return sections


def differences(results: Results, pairs: list[tuple[str, str]]) -> str:
    """A table with one row per pair of a method and its reference and one column per metric."""
    rows = []
    for method, reference in pairs:
        cells = results.of(method=method), results.of(method=reference)
        compared = [format_difference(paired_difference(*cells, metric.name), metric.digits) for metric in METRICS]
        rows.append([method, reference, *compared])
    return table(["method", "compared with", *(metric.title for metric in METRICS)], rows)


def by_scene(results: Results) -> str:
    """A table of PSNR with one row per method and one column per scene."""
    metric = METRICS[0]
    scenes = list(dict.fromkeys(cell["scene"] for cell in results.cells))
    rows = [
        [method]
        + [
            format_spread(over_seeds(results.of(method=method, scene=scene), metric.name), metric.digits)
            for scene in scenes
        ]
        for method in results.methods
    ]
    return table(["method", *scenes], rows)


def notes(results: Results) -> list[str]:
    """The Markdown sections about missing results, changed settings and machines."""
    left_out = {}
    for row in results.rows:
        left_out |= row.result["left_out"]
    left_out |= results.fid_kid["left_out"]
    finished = {row.id for row in results.rows}
    missing = [cell["id"] for cell in results.cells if cell["id"] not in finished]
    machines = [dict(pairs) for pairs in dict.fromkeys(tuple(row.result["machine"].items()) for row in results.rows)]
    sections = []
    if missing:
        cells = "".join(f"- {name} (cells/{name}/log.txt)\n" for name in missing)
        sections += ["## Cells without a result\n", "The means above are over the other cells.\n", cells]
    if left_out:
        sections += [
            "## Metrics left out\n",
            "urlopen error: a metric's weights could not be downloaded; docs/install.md says where the files go.\n",
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
