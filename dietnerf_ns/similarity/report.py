"""Write the results of a comparison: numbers, verdicts and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dietnerf_ns.similarity.photos import PhotoSet
from dietnerf_ns.similarity.plots import draw_histogram, draw_matrix
from dietnerf_ns.similarity.statistics import THRESHOLDS, Separation, in_words, separation, within_pairs
from dietnerf_ns.utils.files import readable, write_json


def write_report(
    out: Path, photo_sets: Sequence[PhotoSet], embeddings: Float[np.ndarray, "num_photos dim"], encoder: dict[str, Any]
) -> list[str]:
    """Write similarity.json, histogram.png and matrix.png.

    Args:
        out: an existing folder.
        photo_sets: the photos of each scene.
        embeddings: unit vectors of all photos, in the order of the photo sets.
        encoder: settings of the encoder, for the plots' titles and the JSON file.

    Returns:
        The verdict on each scene, in words.
    """
    counts = [len(photo_set.photos) for photo_set in photo_sets]
    set_of_photo = np.repeat(np.arange(len(photo_sets)), counts)
    similarities = (embeddings @ embeddings.T).clip(-1, 1)
    separations = [separation(similarities, set_of_photo == i) for i in range(len(photo_sets))]
    sentences = [in_words(photo_set.name, result) for photo_set, result in zip(photo_sets, separations, strict=True)]

    content = {
        "encoder": encoder,
        "thresholds": THRESHOLDS,
        "scenes": [_as_json(*scene) for scene in zip(photo_sets, separations, sentences, strict=True)],
        "similarities": similarities.round(4).tolist(),
    }
    write_json(out / "similarity.json", content)
    title = " ".join(encoder.values())
    within = [within_pairs(similarities, np.flatnonzero(set_of_photo == i)) for i in range(len(photo_sets))]
    first, second = np.triu_indices(len(similarities), k=1)
    across = similarities[first, second][set_of_photo[first] != set_of_photo[second]]
    draw_histogram(out / "histogram.png", np.concatenate(within), across, title)
    names = [photo_set.name for photo_set in photo_sets]
    draw_matrix(out / "matrix.png", similarities, names, np.array(counts), title)
    return sentences


def _as_json(photo_set: PhotoSet, result: Separation, sentence: str) -> dict[str, Any]:
    photos = [readable(photo.name) for photo in photo_set.photos]
    return {"name": photo_set.name, "photos": photos, **asdict(result), "in_words": sentence}
