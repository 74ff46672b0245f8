"""From embeddings to the files of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dietnerf_ns.similarity.photos import Scene
from dietnerf_ns.similarity.plots import draw_histogram, draw_matrix
from dietnerf_ns.similarity.statistics import THRESHOLDS, Separation, in_words, separation, within_pairs
from dietnerf_ns.utils.files import write_json


def write_report(
    out: Path, scenes: Sequence[Scene], embeddings: Float[np.ndarray, "num_photos dim"], encoder: dict[str, Any]
) -> list[str]:
    """Write similarity.json, histogram.png and matrix.png.

    Args:
        out: an existing folder.
        scenes: in the order of their photos.
        embeddings: unit vectors of all photos.
        encoder: its settings, for the title and the file.

    Returns:
        A sentence for each scene.
    """
    counts = [len(scene.photos) for scene in scenes]
    scene_of_photo = np.repeat(np.arange(len(scenes)), counts)
    similarities = (embeddings @ embeddings.T).clip(-1, 1)
    found = [separation(similarities, scene_of_photo == i) for i in range(len(scenes))]
    sentences = [in_words(scene.name, separated) for scene, separated in zip(scenes, found, strict=True)]

    content = {
        "encoder": encoder,
        "thresholds": THRESHOLDS,
        "scenes": [_in_json(*of_scene) for of_scene in zip(scenes, found, sentences, strict=True)],
        "similarities": similarities.round(4).tolist(),
    }
    write_json(out / "similarity.json", content)
    title = " ".join(encoder.values())
    within = [within_pairs(similarities, np.flatnonzero(scene_of_photo == i)) for i in range(len(scenes))]
    first, second = np.triu_indices(len(similarities), k=1)
    across = similarities[first, second][scene_of_photo[first] != scene_of_photo[second]]
    draw_histogram(out / "histogram.png", np.concatenate(within), across, title)
    draw_matrix(out / "matrix.png", similarities, [scene.name for scene in scenes], np.array(counts), title)
    return sentences


def _in_json(scene: Scene, found: Separation, sentence: str) -> dict[str, Any]:
    names = [photo.name for photo in scene.photos]
    return {"name": scene.name, "photos": names, **asdict(found), "in_words": sentence}
