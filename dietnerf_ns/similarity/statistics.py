"""How well an encoder separates the views of one scene from those of other scenes. Pure functions.

s_ij = phi_i . phi_j is the cosine similarity of two photos' unit embeddings. A *within* pair consists of two photos of
the same scene, an *across* pair of one photo of it and one photo of another scene. Separation is the area under the ROC
curve,

    AUC = P(s_within > s_across) + P(s_within = s_across) / 2,

over all combinations of a within pair and an across pair. It is 1 if any two views of the scene are more similar than
any view of it and a view of another scene, and 0.5 if the encoder does not separate them at all. Unlike a difference of
means, it does not depend on the scale of the similarities, which differs from encoder to encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

WELL, PARTLY = 0.9, 0.7
THRESHOLDS = (
    f"A scene is well separated if AUC is at least {WELL} (at most 1 of 10 comparisons is wrong), partly separated if "
    f"it is at least {PARTLY} (at most 3 of 10 are wrong), and hardly separated below that; 0.5 is chance. The verdict "
    "uses the lower end of the 95 % interval of AUC (bootstrap over photos), so that it is cautious with few photos."
)
ADVICE = {
    "well": "The semantic loss has a clear target.",
    "partly": "Expect little of the semantic loss with this encoder. A stronger encoder may do better.",
    "hardly": "With this encoder the semantic loss would pull towards any scene. Use another encoder, or weight 0.",
    "alone": "There is nothing to compare it with: name a second scene.",
}
RESAMPLES = 1000


@dataclass(frozen=True)
class PairStatistics:
    """Cosine similarities of a set of pairs, each in [-1, 1]."""

    pairs: int
    mean: float
    standard_deviation: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Separation:
    """How well the views of one scene are separated from those of the other scenes."""

    within: PairStatistics
    across: PairStatistics | None
    """None without another scene, as are `auc` and `auc_interval`."""
    auc: float | None
    auc_interval: tuple[float, float] | None
    """95 % bootstrap interval of `auc`."""
    verdict: str
    """well, partly or hardly; alone without another scene."""


def roc_auc(within: Float[np.ndarray, "n"], across: Float[np.ndarray, "m"]) -> float:
    """P(within > across) + P(within = across) / 2 over all n m combinations, in [0, 1]."""
    across = np.sort(across)
    below = np.searchsorted(across, within, side="left") + np.searchsorted(across, within, side="right")
    return float(below.mean() / (2 * len(across)))


def within_pairs(
    similarities: Float[np.ndarray, "n n"], photos: Int[np.ndarray, "k"]
) -> Float[np.ndarray, "num_pairs"]:
    """Similarities of all pairs of different photos.

    Args:
        similarities: cosine similarities of all photos.
        photos: indices of the photos to pair. A photo that occurs twice is not paired with itself.
    """
    first, second = np.triu_indices(len(photos), k=1)
    different = photos[first] != photos[second]
    return similarities[photos[first][different], photos[second][different]]


def separation(similarities: Float[np.ndarray, "n n"], of_scene: Bool[np.ndarray, "n"], seed: int = 0) -> Separation:
    """Compare the similarities within a scene with those across scenes.

    Args:
        similarities: cosine similarities of all photos.
        of_scene: which photos show the scene.
        seed: seed of the bootstrap.
    """
    inside, outside = np.flatnonzero(of_scene), np.flatnonzero(~of_scene)
    within = within_pairs(similarities, inside)
    if len(outside) == 0:
        return Separation(pair_statistics(within), None, None, None, "alone")
    across = similarities[np.ix_(inside, outside)].ravel()
    interval = _bootstrap(similarities, inside, outside, np.random.default_rng(seed))
    auc = roc_auc(within, across)
    return Separation(pair_statistics(within), pair_statistics(across), auc, interval, _verdict(interval[0]))


def _bootstrap(
    similarities: Float[np.ndarray, "n n"],
    inside: Int[np.ndarray, "k"],
    outside: Int[np.ndarray, "m"],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """95 % percentile interval of AUC. Photos are resampled, not pairs: pairs that share a photo are not independent.

    The interval is too narrow with fewer than about eight photos or with an AUC close to 1, because resampling cannot
    show what the photos do not contain.
    """
    aucs = []
    while len(aucs) < RESAMPLES:
        resampled_inside, resampled_outside = rng.choice(inside, len(inside)), rng.choice(outside, len(outside))
        within = within_pairs(similarities, resampled_inside)
        if len(within):
            aucs.append(roc_auc(within, similarities[np.ix_(resampled_inside, resampled_outside)].ravel()))
    low, high = np.quantile(aucs, [0.025, 0.975])
    return float(low), float(high)


def _verdict(auc: float) -> str:
    return "well" if auc >= WELL else "partly" if auc >= PARTLY else "hardly"


def pair_statistics(values: Float[np.ndarray, "n"]) -> PairStatistics:
    """Number, mean, standard deviation (n - 1; 0 for a single value) and extremes of the similarities of pairs."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return PairStatistics(len(values), float(values.mean()), deviation, float(values.min()), float(values.max()))


def in_words(name: str, result: Separation) -> str:
    """Describe the separation of a scene in sentences; similarities are mean ± standard deviation."""
    within, across, interval = result.within, result.across, result.auc_interval
    within_in_words = f"{within.mean:.2f} ± {within.standard_deviation:.2f}"
    if across is None or interval is None:
        return f"{name}: its views have similarity {within_in_words}. {ADVICE[result.verdict]}"
    return (
        f"{name}: {result.verdict} separated, AUC {result.auc:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]. Its views "
        f"have similarity {within_in_words} with each other and {across.mean:.2f} ± {across.standard_deviation:.2f} "
        f"with views of other scenes. {ADVICE[result.verdict]}"
    )
