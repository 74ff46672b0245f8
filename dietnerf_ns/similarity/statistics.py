"""How well similarities separate one scene's views from others', as numbers and as a verdict. Pure functions.

s_ij = phi_i . phi_j is the cosine similarity of two photos' unit embeddings. A *within* pair are two photos of the same
scene, an *across* pair one photo of it and one of another scene. Separation is the area under the ROC curve

    AUC = P(s_within > s_across) + P(s_within = s_across) / 2,

over all combinations of a within pair and an across pair: 1 means that any two views of the scene are more alike than
any of them and a view of something else, 0.5 that the encoder knows nothing. It does not depend on the scale of the
similarities, which differs from encoder to encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

WELL, PARTLY = 0.9, 0.7
THRESHOLDS = (
    f"A scene is told apart well if AUC is at least {WELL} (wrong in at most 1 of 10 comparisons), partly from "
    f"{PARTLY} (wrong in 3 of 10), else hardly; 0.5 is chance. Judged by the lower end of its 95 % interval (bootstrap "
    "over photos), so that few photos do not flatter."
)
ADVICE = {
    "well": "The semantic loss has something to pull towards.",
    "partly": "Expect little of the semantic loss with this encoder; a stronger one may do better.",
    "hardly": "With this encoder the semantic loss would pull towards anything: take another one, or weight 0.",
    "alone": "Nothing to compare with: name a second scene.",
}
RESAMPLES = 1000


@dataclass(frozen=True)
class Spread:
    """Cosine similarities of a set of pairs, each in [-1, 1]."""

    pairs: int
    mean: float
    standard_deviation: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Separation:
    """How well one scene's views are told from the other scenes'."""

    within: Spread
    across: Spread | None
    auc: float | None
    auc_interval: tuple[float, float] | None
    """95 %."""
    verdict: str
    """well, partly, hardly; alone without another scene."""


def roc_auc(within: Float[np.ndarray, "n"], across: Float[np.ndarray, "m"]) -> float:
    """P(within > across) + P(within = across) / 2, over all n m combinations."""
    across = np.sort(across)
    below = np.searchsorted(across, within, side="left") + np.searchsorted(across, within, side="right")
    return float(below.mean() / (2 * len(across)))


def within_pairs(
    similarities: Float[np.ndarray, "n n"], photos: Int[np.ndarray, "k"]
) -> Float[np.ndarray, "num_pairs"]:
    """Of every two different photos of these; a photo that is listed twice is not compared with itself."""
    first, second = np.triu_indices(len(photos), k=1)
    different = photos[first] != photos[second]
    return similarities[photos[first][different], photos[second][different]]


def separation(similarities: Float[np.ndarray, "n n"], of_scene: Bool[np.ndarray, "n"], seed: int = 0) -> Separation:
    """Within and across similarities of one scene, and what they say.

    Args:
        similarities: of all photos.
        of_scene: which photos show the scene.
        seed: of the bootstrap.
    """
    inside, outside = np.flatnonzero(of_scene), np.flatnonzero(~of_scene)
    within = within_pairs(similarities, inside)
    if len(outside) == 0:
        return Separation(spread(within), None, None, None, "alone")
    across = similarities[np.ix_(inside, outside)].ravel()
    interval = _bootstrap(similarities, inside, outside, np.random.default_rng(seed))
    return Separation(spread(within), spread(across), roc_auc(within, across), interval, _verdict(interval[0]))


def _bootstrap(
    similarities: Float[np.ndarray, "n n"],
    inside: Int[np.ndarray, "k"],
    outside: Int[np.ndarray, "m"],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Percentile interval. Photos are drawn, not pairs: pairs that share a photo are not independent.

    With fewer than about eight photos, or close to 1, it is too narrow: what few photos do not show it cannot know.
    """
    aucs = []
    while len(aucs) < RESAMPLES:
        drawn, others = rng.choice(inside, len(inside)), rng.choice(outside, len(outside))
        within = within_pairs(similarities, drawn)
        if len(within):
            aucs.append(roc_auc(within, similarities[np.ix_(drawn, others)].ravel()))
    low, high = np.quantile(aucs, [0.025, 0.975])
    return float(low), float(high)


def _verdict(auc: float) -> str:
    return "well" if auc >= WELL else "partly" if auc >= PARTLY else "hardly"


def spread(values: Float[np.ndarray, "n"]) -> Spread:
    """Mean, standard deviation (n - 1) and extremes."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Spread(len(values), float(values.mean()), deviation, float(values.min()), float(values.max()))


def in_words(name: str, found: Separation) -> str:
    """The verdict as a sentence."""
    within = f"its views have similarity {found.within.mean:.2f} ± {found.within.standard_deviation:.2f}"
    if found.across is None:
        return f"{name}: {within}. {ADVICE[found.verdict]}"
    low, high = found.auc_interval
    across = f"views of it and of other scenes {found.across.mean:.2f} ± {found.across.standard_deviation:.2f}"
    return (
        f"{name}: told apart {found.verdict}. AUC {found.auc:.3f} [{low:.3f}, {high:.3f}]; {within}, {across}. "
        f"{ADVICE[found.verdict]}"
    )
