"""The plots of a report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dietnerf_ns.bench.cell import slug
from dietnerf_ns.bench.summary import METRICS, Metric, Results, Row, over_seeds, paired_difference

matplotlib.use("Agg")
PHOTOS_SHOWN = 4
SMOOTHED_POINTS = 60
"""Number of points that are drawn of a learning curve. Each is the mean of neighbouring steps."""
NAMES = ("bars", "differences", "curves", "contact_sheet")
"""Of the plots that every report can have."""
CURVE_STYLES: dict[str, dict[str, Any]] = {
    "unseen views": {"linewidth": 2},
    "photos": {"linewidth": 0.7, "linestyle": "--"},
}


def draw_plots(
    results: Results, folder: Path, *, contact_sheet: bool = True, same_cells: bool = False
) -> list[tuple[str, Path]]:
    """Draw every plot that the results allow.

    Args:
        results: the finished cells.
        folder: folder that the PNG files are written to.
        contact_sheet: whether to draw the sheet of photos and renders.
        same_cells: whether the plots in the folder show these cells. Then those are kept that need learning curves or
            images which the results do not have; otherwise all that are not drawn anew are deleted.

    Returns:
        Caption and file of each plot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = {
        "bars": ("Mean over all (scene, views); bars: standard deviation over seeds, dots: cells.", draw_bars),
        "differences": (
            f"Paired difference from {results.baseline}, 95 % confidence interval; dots: (scene, views, seed).",
            draw_differences,
        ),
        "curves": ("PSNR of rays during training, mean over the cells; thin: the rays trained on.", draw_curves),
    }
    plots |= _plots_by_number(results)
    if contact_sheet:
        plots["contact_sheet"] = ("Photo and renders of evaluated views, first seed.", draw_contact_sheet)
    shown = []
    for name, (caption, draw) in plots.items():
        with pyplot.rc_context({"text.parse_math": False}):  # names may have dollar signs
            figure = draw(results)
        path = folder / f"{name}.png"
        if figure is not None:
            figure.savefig(path, dpi=110, bbox_inches="tight")
            pyplot.close(figure)
        if figure is not None or (same_cells and path.is_file()):
            shown.append((caption, path))
    for older in {*folder.glob("by_number*.png"), *(folder / f"{name}.png" for name in NAMES)} - {p for _, p in shown}:
        older.unlink(missing_ok=True)
    return shown


def _plots_by_number(results: Results) -> dict[str, tuple[str, Callable[[Results], Figure | None]]]:
    """Caption and function of the plots over the number of training views: the mean of the scenes and each scene."""
    scenes = list(dict.fromkeys(cell["scene"] for cell in results.cells))
    caption = "By number of training views, {}; bands: standard deviation over seeds."
    plots: dict[str, tuple[str, Callable[[Results], Figure | None]]] = {}
    if len(scenes) > 1:
        plots["by_number"] = (caption.format(f"mean of {', '.join(scenes)}"), draw_by_number)
    for position, scene in enumerate(scenes):
        name = f"by_number_{position}_{slug(scene)}"
        plots[name] = (caption.format(scene), partial(draw_by_number, scene=scene))
    return plots


def draw_by_number(results: Results, scene: str | None = None) -> Figure | None:
    """One panel per metric with one line per method over the number of training views.

    Args:
        results: the finished cells.
        scene: the scene; None for the mean over all scenes, of numbers of views that a method has all scenes of.

    Returns:
        None if the cells do not have different numbers of training views, or no metric.
    """
    part = results if scene is None else results.only(scene=scene)
    numbers = sorted({row.training_views for row in part.rows if row.training_views is not None})
    if len(numbers) < 2:
        return None
    metrics = _measured(part)
    if not metrics:
        return None
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(4 * len(metrics), 3.4), squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for position, method in enumerate(part.methods):
            _line_over_numbers(axis, part, method, metric, color=f"C{position % 10}")
        axis.set(xlabel="training views", ylabel=metric.title, xticks=numbers)
        axis.grid(alpha=0.3)
    axes[0, -1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    return figure


def _line_over_numbers(axis: Axes, part: Results, method: str, metric: Metric, color: str) -> None:
    scenes = {cell["scene"] for cell in part.cells}
    points = {}
    for number in sorted({row.training_views for row in part.of(method=method) if row.training_views is not None}):
        rows = part.of(method=method, training_views=number)
        spread = over_seeds(rows, metric.name)
        if spread is not None and {row.scene for row in rows} == scenes:
            points[number] = spread
    means = np.array([spread.mean for spread in points.values()])
    deviations = np.array([spread.deviation or 0 for spread in points.values()])
    axis.plot(list(points), means, "o-", markersize=3, color=color, label=method)
    axis.fill_between(list(points), means - deviations, means + deviations, color=color, alpha=0.2, linewidth=0)


def _measured(results: Results) -> list[Metric]:
    return [metric for metric in METRICS if any(metric.name in row.values for row in results.rows)]


def _panels(results: Results, methods: list[str]) -> tuple[Figure, list[tuple[Axes, Metric]]]:
    """A figure with one panel for each metric that was measured and one line for each method."""
    metrics = _measured(results)
    size = (4 * len(metrics), 1.2 + 0.45 * len(methods))
    figure, axes = pyplot.subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False)
    axes[0, 0].set_yticks(range(len(methods)), methods)
    axes[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    return figure, list(zip(axes[0], metrics, strict=True))


def draw_bars(results: Results) -> Figure | None:
    """One panel per metric with one bar per method; None without metrics. Bars start at zero; the differences have a
    plot of their own."""
    if not _measured(results):
        return None
    figure, panels = _panels(results, results.methods)
    for axis, metric in panels:
        for position, method in enumerate(results.methods):
            rows = results.of(method=method)
            spread = over_seeds(rows, metric.name)
            if spread is not None:
                axis.barh(position, spread.mean, xerr=spread.deviation, color=f"C{position % 10}", alpha=0.6, capsize=3)
                axis.text(0, position, f" {spread.mean:.{metric.digits}f}", va="center", fontsize=9)
                _dots(axis, [row.values[metric.name] for row in rows], position + 0.25)
        axis.set_xlabel(metric.title)
    return figure


def draw_differences(results: Results) -> Figure | None:
    """One panel per metric with every method's difference from the baseline; None if no cells can be paired."""
    baseline = results.of(method=results.baseline)
    others = [method for method in results.methods if method != results.baseline]
    if not any(paired_difference(results.of(method=method), baseline, METRICS[0].name) for method in others):
        return None
    figure, panels = _panels(results, others)
    for axis, metric in panels:
        axis.axvline(0, color="0.6", linewidth=1)
        axis.set_xlabel(f"difference in {metric.title}")
        reference = {row.pair: row.values[metric.name] for row in baseline if metric.name in row.values}
        for position, method in enumerate(others):
            rows = [row for row in results.of(method=method) if metric.name in row.values and row.pair in reference]
            difference = paired_difference(rows, baseline, metric.name)
            if difference is not None:
                color = f"C{results.methods.index(method) % 10}"
                axis.errorbar(difference.mean, position, xerr=difference.half_width, fmt="D", color=color, capsize=4)
                _dots(axis, [row.values[metric.name] - reference[row.pair] for row in rows], position + 0.25)
    return figure


def _dots(axis: Axes, values: list[float], position: float) -> None:
    axis.plot(values, [position] * len(values), ".", color="black", markersize=3, alpha=0.6)


def draw_curves(results: Results) -> Figure | None:
    """PSNR over training steps; None if nothing was logged, or if cells come from a report, which has no curves."""
    if any("curves" not in row.result for row in results.rows):
        return None
    figure, axis = pyplot.subplots(figsize=(8, 4.5))
    for position, method in enumerate(results.methods):
        for curve, style in CURVE_STYLES.items():
            steps, values = mean_curve(results.of(method=method), curve)
            if len(steps):
                axis.plot(steps, values, color=f"C{position % 10}", label=f"{method}, {curve}", **style)
    if not axis.lines:
        pyplot.close(figure)
        return None
    axis.set_xlabel("training step")
    axis.set_ylabel("PSNR of a batch of rays (dB)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def mean_curve(rows: list[Row], name: str) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]:
    """Mean of a logged curve over the cells that have it, at the steps that all of them have.

    Neighbouring steps are averaged so that at most `SMOOTHED_POINTS` points remain.

    Returns:
        Steps and PSNR in dB.
    """
    curves = [dict(row.result["curves"][name]) for row in rows if name in row.result["curves"]]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    values = [np.mean([curve[step] for curve in curves]) for step in steps]
    pieces = [piece for piece in np.array_split(np.arange(len(steps)), SMOOTHED_POINTS) if len(piece)]
    return (
        np.array([np.mean([steps[i] for i in piece]) for piece in pieces]),
        np.array([np.mean([values[i] for i in piece]) for piece in pieces]),
    )


def draw_contact_sheet(results: Results) -> Figure | None:
    """One row for each of a few evaluated views: the photo, and every method's render beside it.

    Returns:
        None if no cell's images are at hand.
    """
    places = list(dict.fromkeys((row.scene, row.views) for row in results.rows if row.folder is not None))
    if not places:
        return None
    lines = [line for place in places for line in _sheet_lines(results, *place, max(1, PHOTOS_SHOWN // len(places)))]
    if not any(images for _, images in lines):
        return None
    columns = ["photo", *results.methods]
    size = (1.8 * len(columns), 1.9 * len(lines))
    figure, axes = pyplot.subplots(len(lines), len(columns), figsize=size, squeeze=False)
    for axis_row, (label, images) in zip(axes, lines, strict=True):
        axis_row[0].set_ylabel(label, fontsize=7)
        for axis, column in zip(axis_row, columns, strict=True):
            axis.set(xticks=[], yticks=[])
            if column in images:
                axis.imshow(np.asarray(Image.open(images[column])))
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=8)
    figure.subplots_adjust(wspace=0.04, hspace=0.04)
    return figure


def _sheet_lines(results: Results, scene: str, views: str, count: int) -> list[tuple[str, dict[str, Path]]]:
    """Label and existing image files by column of evenly chosen views, from each method's first finished cell."""
    shown = [row for row in results.of(scene=scene, views=views) if row.folder is not None]
    firsts = {row.method: row for row in reversed(shown)}
    names = [image["name"] for image in next(iter(firsts.values())).result["images"]]
    count = min(count, len(names))
    chosen = [names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)]
    lines = []
    for name in chosen:
        folders = {method: row.folder for method, row in firsts.items() if row.folder is not None}
        images = {method: folder / "renders" / f"{name}.png" for method, folder in folders.items()}
        images["photo"] = next(iter(folders.values())) / "photos" / f"{name}.png"
        lines.append((f"{scene}\n{views}\n{name}", {column: file for column, file in images.items() if file.is_file()}))
    return lines
