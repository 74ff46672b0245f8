"""Plots of the similarities: a histogram and a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

WITHIN_COLOUR, ACROSS_COLOUR = "tab:green", "tab:red"


def draw_histogram(path: Path, within: Float[np.ndarray, "n"], across: Float[np.ndarray, "m"], title: str) -> None:
    """Draw the densities of the similarities within a scene and across scenes, as in the paper's figure.

    Args:
        path: image file to write.
        within: cosine similarities of pairs of photos of the same scene.
        across: cosine similarities of pairs of photos of different scenes; may be empty.
        title: title of the plot.
    """
    figure = Figure(figsize=(6, 3.5))
    axis = figure.subplots()
    both = np.concatenate([within, across])
    bins = np.linspace(both.min(), both.max() + 1e-6, 41)
    for values, colour, label in ((within, WITHIN_COLOUR, "within a scene"), (across, ACROSS_COLOUR, "across scenes")):
        if len(values):
            axis.hist(values, bins, density=True, color=colour, alpha=0.6, label=f"{label} ({len(values)} pairs)")
    axis.set(xlabel="cosine similarity of two photos' embeddings", ylabel="density")
    axis.set_title(title, parse_math=False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def draw_matrix(
    path: Path,
    similarities: Float[np.ndarray, "n n"],
    names: Sequence[str],
    counts: Int[np.ndarray, "num_scenes"],
    title: str,
) -> None:
    """Draw the similarity of every two photos, with lines between the scenes.

    Args:
        path: image file to write.
        similarities: cosine similarities of all photos, scene after scene. The colour scale spans the values off the
            diagonal.
        names: names of the scenes.
        counts: number of photos of each scene.
        title: title of the plot.
    """
    figure = Figure(figsize=(6, 5))
    axis = figure.subplots()
    off_diagonal = similarities[~np.eye(len(similarities), dtype=bool)]
    image = axis.imshow(similarities, vmin=off_diagonal.min(), vmax=off_diagonal.max())
    ends = np.cumsum(counts)
    for end in ends[:-1]:
        axis.axhline(end - 0.5, color="white", linewidth=1)
        axis.axvline(end - 0.5, color="white", linewidth=1)
    middles = ends - (np.asarray(counts) + 1) / 2
    axis.set_xticks(middles, names, parse_math=False)
    axis.set_yticks(middles, names, rotation=90, va="center", parse_math=False)
    axis.set_title(title, parse_math=False)
    figure.colorbar(image, label="cosine similarity")
    figure.savefig(path, dpi=110, bbox_inches="tight")
