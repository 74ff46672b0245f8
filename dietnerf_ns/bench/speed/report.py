"""Writes speed.md and speed.png from the content of speed.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot

from dietnerf_ns.bench.speed.roofline import render_parts
from dietnerf_ns.bench.speed.semantic_step import PARTS
from dietnerf_ns.bench.tables import NOTHING, format_number, table

matplotlib.use("Agg")
REPORT, PLOT = "speed.md", "speed.png"
SETTING = "checkpoint-render"


def write_report(content: dict[str, Any], folder: Path) -> Path:
    """Write the page and its plot.

    Args:
        content: content of speed.json.
        folder: folder that they are written to.

    Returns:
        Path of speed.md.
    """
    measured, machine = content["measured"], content["machine"]
    drawn = draw(measured, folder / PLOT)
    described = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items())
    data = content["settings"]["data"]
    photos = f"{data['folder']}, {data['protocol'] or 'all training views'}, images scaled by {data['scale']:g}"
    sections = [
        "# Speed and memory\n",
        f"Measured on: {described}. Photos: {photos}. Times are medians with quartiles in brackets.\n",
        *([f"![Time and memory of a semantic step against the size of its view]({PLOT})\n"] if drawn else []),
        *(f"Note: {note}\n" for note in content["notes"]),
        *steps_section(measured),
        *memory_section(measured),
        *split_section(measured),
        *roofline_section(measured),
        *job_section(measured),
        *target_section(measured),
        *unmeasured_section(measured),
    ]
    (folder / REPORT).write_text("\n".join(sections))
    return folder / REPORT


def entries(measured: dict[str, Any], name: str) -> list[dict]:
    """The measurements of a probe; empty if it did not run."""
    return measured.get(name, {}).get("entries", [])


def quartiles(spread: dict[str, float] | None, digits: int = 1) -> str:
    """`median [low, high]`."""
    if spread is None:
        return NOTHING
    return f"{spread['median']:.{digits}f} [{spread['low']:.{digits}f}, {spread['high']:.{digits}f}]"


def steps_section(measured: dict[str, Any]) -> list[str]:
    """Cost of a training step. Ratios are taken within a round, so that a changing speed of the machine cancels."""
    rows = entries(measured, "steps")
    if not rows:
        return []
    labels = [row["label"] for row in rows]
    header = ["", "rays", "average step (ms)", "steps/s", "plain step (ms)", "semantic step (ms)"]
    lines = [
        [
            row["label"],
            str(row["rays"]),
            quartiles(row["milliseconds"]),
            f"{1000 / row['milliseconds']['median']:.2f}",
            quartiles(row.get("plain")),
            quartiles(row.get("semantic")),
            *(quartiles(row["ratio"].get(label), 2) for label in labels),
        ]
        for row in rows
    ]
    return ["## Training step\n", table(header + [f"relative to {label}" for label in labels], lines)]


def memory_section(measured: dict[str, Any]) -> list[str]:
    """Peak memory of whole steps."""
    rows = [row for name in measured if name.startswith("memory of") for row in entries(measured, name)]
    rows = [row for row in rows if "start" in row]
    if not rows:
        return []
    lines = [
        [row["label"], *(format_number(row.get(name), 0) for name in ("start", "plain", "semantic")), _total_ratio(row)]
        for row in rows
    ]
    header = ["", "between steps (MiB)", "plain step adds", "semantic step adds", "semantic / plain, total"]
    return ["## Peak memory\n", table(header, lines)]


def _total_ratio(row: dict) -> str:
    if "semantic" not in row:
        return NOTHING
    return f"{(row['start'] + row['semantic']) / (row['start'] + row['plain']):.2f}"


def split_section(measured: dict[str, Any]) -> list[str]:
    """Time and memory of the parts of a semantic step."""
    sections = []
    columns = (("time", "ms", quartiles), ("memory", "MiB above idle", lambda value: format_number(value, 0)))
    for what, unit, formatted in columns:
        lines = [
            [
                str(row["size"]),
                str(row["recompute"]),
                *_rendered(row.get("renders", [])),
                *(formatted(row.get(part)) for part in PARTS),
                row.get("reason", NOTHING),
            ]
            for row in entries(measured, f"semantic step, {what}")
        ]
        if lines:
            header = ["view (pixels)", SETTING, "render", "rays", "rays rendered again"]
            header += [*(f"{part} ({unit})" for part in PARTS), "reason if not measured"]
            sections += [f"## {what.capitalize()} of a semantic step\n", table(header, lines)]
    return sections


def _rendered(renders: list[dict]) -> tuple[str, str, str]:
    """Whether views were rendered again for their gradient, and the medians of the rays, first and again."""
    if not renders:
        return NOTHING, NOTHING, NOTHING
    recomputed = sum(not render["kept"] for render in renders)
    ways = {0: "activations kept", len(renders): "recomputed"}
    way = ways.get(recomputed, f"recomputed in {recomputed} of {len(renders)}")
    rays, again = (f"{np.median([render[name] for render in renders]):.0f}" for name in ("rays", "again"))
    return way, rays, again


def roofline_section(measured: dict[str, Any]) -> list[str]:
    """How close the parts come to the limits of the machine."""
    lines, text = [], ""
    for entry in entries(measured, "floor"):
        limits, row = entry["limits"], _measured_view(measured, entry["size"])
        text = (
            f"Copies run at {limits['bytes_per_second'] / 1e9:.1f} GB/s, matrix products at "
            f"{limits['operations_per_second'] / 1e9:.0f} GFLOP/s. {_rays_of_bounds(entry['size'], row)}\n"
        )
        bounds, spent = entry["parts"], _milliseconds_of_plain_step(measured)
        if row is not None:
            bounds = bounds | render_parts(entry, row["renders"])
            spent |= {part: row[part]["median"] for part in PARTS}
        known = (part for part in ("plain step", *PARTS) if part in bounds)
        lines += [_roofline_row(part, bounds[part], spent.get(part)) for part in known]
    header = ["", "GFLOP", "MB", "roofline bound (ms)", "measured (ms)", "bound / measured"]
    return ["## Roofline\n", text, table(header, lines)] if lines else []


def _roofline_row(part: str, least: dict[str, float], spent: float | None) -> list[str]:
    return [
        part,
        f"{least['operations'] / 1e9:.2f}",
        f"{least['bytes'] / 1e6:.0f}",
        f"{least['milliseconds']:.2f}",
        format_number(spent, 1),
        NOTHING if spent is None else f"{100 * least['milliseconds'] / spent:.0f} %",
    ]


def _rays_of_bounds(size: int, row: dict | None) -> str:
    """What the bounds of the render are for."""
    view = f"The semantic view has {size} pixels along its shorter side."
    if row is None:
        return (
            f"{view} The bounds of its render need the number of rendered rays, which the part `semantic-step` counts "
            f"if {size} is one of its `--sizes`."
        )
    way, rays, again = _rendered(row["renders"])
    return f"{view} The bounds of its render are those of {rays} rays, {again} of them rendered again ({way})."


def _measured_view(measured: dict[str, Any], size: int) -> dict | None:
    """Times of a semantic step as training takes it, for one size of its view."""
    rows = entries(measured, "semantic step, time")
    return next((row for row in rows if row["size"] == size and row["recompute"] and "renders" in row), None)


def _milliseconds_of_plain_step(measured: dict[str, Any]) -> dict[str, float]:
    rows = entries(measured, "steps")
    return {"plain step": rows[1]["plain"]["median"]} if len(rows) > 1 else {}


def job_section(measured: dict[str, Any]) -> list[str]:
    """A whole run from the start of the program to the last evaluated view."""
    lines = []
    for row in entries(measured, "whole job"):
        training = row["training"]
        lines.append(
            [
                row["label"],
                f"{row['seconds']:.0f}",
                f"{training['seconds']:.0f}",
                str(training["steps"]),
                f"{training['peak_memory_mib']:.0f}",
                format_number(training.get("peak_gpu_memory_mib"), 0),
                f"{row['psnr']:.2f}",
                f"{row['ssim']:.3f}",
            ]
        )
    header = [
        "",
        "train and evaluate (s)",
        "training loop (s)",
        "steps",
        "peak memory (MiB)",
        "GPU (MiB)",
        "PSNR",
        "SSIM",
    ]
    return ["## Whole run\n", table(header, lines)] if lines else []


def target_section(measured: dict[str, Any]) -> list[str]:
    """Time until the PSNR is reached, and how far the other method came."""
    rows = entries(measured, "target, ours") + entries(measured, "target, against")
    lines = []
    for row in rows:
        seconds, steps, psnr = row["curve"][-1]
        last = f"{psnr:.2f} dB after {seconds:.0f} s, {steps} steps"
        lines.append([row["label"], format_number(row["seconds"], 1), str(row["steps"] or NOTHING), last])
    if not lines:
        return []
    header = ["", f"seconds to {rows[0]['psnr']:g} dB", "steps", "last evaluation"]
    return ["## Time to a PSNR on test views\n", table(header, lines), *_comparison(rows)]


def _comparison(rows: list[dict]) -> list[str]:
    if len(rows) < 2 or rows[0]["seconds"] is None:
        return []
    ours, other = rows
    if other["seconds"] is not None:
        return [f"{other['label']} took {other['seconds'] / ours['seconds']:.1f} times as long.\n"]
    spent = other["curve"][-1][0]
    return [f"{other['label']} was stopped after {spent / ours['seconds']:.1f} times as long without reaching it.\n"]


def unmeasured_section(measured: dict[str, Any]) -> list[str]:
    """What could not be measured, with the reason."""
    reasons = [f"- {name}: {result['reason']}" for name, result in measured.items() if "reason" in result]
    reasons += [
        f"- {name}: {row['reason']}"
        for name in measured
        for row in entries(measured, name)
        if "reason" in row and "size" not in row
    ]
    return ["## Not measured\n", "\n".join(reasons) + "\n"] if reasons else []


def draw(measured: dict[str, Any], path: Path) -> bool:
    """Plot time and memory of a semantic step against the size of its view.

    Returns:
        Whether there was anything to draw. If not, no file is written.
    """
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    drawn = False
    for axis, what, total in ((axes[0], "time", _milliseconds), (axes[1], "memory", _peak)):
        for recompute in (True, False):
            rows = [row for row in entries(measured, f"semantic step, {what}") if row["recompute"] is recompute]
            points = [(row["size"], total(row)) for row in rows if "reason" not in row]
            if points:
                axis.plot(*zip(*points, strict=True), "o-", label=f"{SETTING} {recompute}")
                drawn = True
        axis.set_xlabel("shorter side of the semantic view (pixels)")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("time of a semantic view (ms)")
    axes[1].set_ylabel("peak memory above idle (MiB)")
    if drawn:
        axes[0].legend()
        figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)
    return drawn


def _milliseconds(row: dict) -> float:
    return sum(row[part]["median"] for part in PARTS)


def _peak(row: dict) -> float:
    return max(row[part] for part in PARTS)
