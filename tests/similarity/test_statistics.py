import numpy as np
import pytest

from dietnerf_ns.similarity.statistics import in_words, pair_statistics, roc_auc, separation, within_pairs


def unit_vectors(scene_directions, count, noise, seed=0):
    """`count` noisy unit vectors around each direction, scene after scene."""
    rng = np.random.default_rng(seed)
    vectors = np.repeat(np.asarray(scene_directions, dtype=float), count, axis=0)
    vectors = vectors + noise * rng.normal(size=vectors.shape)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def separation_of_first(vectors, count):
    return separation(vectors @ vectors.T, np.arange(len(vectors)) < count)


def test_auc_by_hand():
    assert roc_auc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert roc_auc(np.array([0.1]), np.array([0.2, 0.3])) == 0
    assert roc_auc(np.array([0.5, 0.5]), np.array([0.5])) == 0.5
    assert roc_auc(np.array([0.3, 0.6]), np.array([0.2, 0.4])) == 0.75


def test_auc_is_the_fraction_of_won_comparisons():
    rng = np.random.default_rng(1)
    within, across = rng.normal(0.5, 0.2, 40).round(1), rng.normal(0.3, 0.2, 30).round(1)
    won = np.mean([(w > a) + 0.5 * (w == a) for w in within for a in across])
    assert roc_auc(within, across) == pytest.approx(won)


def test_a_photo_drawn_twice_is_not_compared_with_itself():
    similarities = np.array([[1.0, 0.2, 0.3], [0.2, 1.0, 0.4], [0.3, 0.4, 1.0]])
    assert sorted(within_pairs(similarities, np.array([0, 1, 2]))) == [0.2, 0.3, 0.4]
    assert sorted(within_pairs(similarities, np.array([1, 1, 2]))) == [0.4, 0.4]


def test_pairs_are_counted_and_described():
    similarities = np.full((5, 5), 0.1)
    similarities[:3, :3] = [[1, 0.5, 0.6], [0.5, 1, 0.7], [0.6, 0.7, 1]]
    result = separation(similarities, np.array([True, True, True, False, False]))
    assert (result.within.pairs, result.across.pairs) == (3, 6)
    assert result.within.mean == pytest.approx(0.6) and result.across.mean == pytest.approx(0.1)
    assert result.within.standard_deviation == pytest.approx(0.1)
    assert (result.within.minimum, result.within.maximum) == (0.5, 0.7)
    assert pair_statistics(np.array([0.4])).standard_deviation == 0


@pytest.mark.parametrize(
    "directions, noise, verdict",
    [
        ([[1, 0, 0], [0, 1, 0]], 0.1, "well"),
        ([[1, 0, 0], [0, 1, 0]], 0.5, "partly"),
        ([[1, 0, 0], [1, 0, 0]], 0.3, "hardly"),
    ],
)
def test_verdict_follows_the_distance_between_scenes(directions, noise, verdict):
    result = separation_of_first(unit_vectors(directions, 20, noise), 20)
    low, high = result.auc_interval
    assert 0 <= low <= result.auc <= high <= 1
    assert result.verdict == verdict, result


def test_few_photos_widen_the_interval_and_lower_the_verdict():
    vectors = unit_vectors([[1, 0, 0], [0, 1, 0]], 40, 0.42)
    many, few = separation_of_first(vectors, 40), separation_of_first(vectors[34:46], 6)
    assert few.auc_interval[1] - few.auc_interval[0] > 1.5 * (many.auc_interval[1] - many.auc_interval[0])
    assert few.verdict != "well"


def test_interval_contains_the_true_auc_about_as_often_as_stated():
    """50 repetitions with 12 photos per scene. The true AUC comes from 400 photos per scene."""
    directions, noise = [[1, 0, 0], [0, 1, 0]], 0.45
    many = unit_vectors(directions, 400, noise, seed=99)
    truth = roc_auc(within_pairs(many @ many.T, np.arange(400)), (many[:400] @ many[400:].T).ravel())
    intervals = [separation_of_first(unit_vectors(directions, 12, noise, seed), 12).auc_interval for seed in range(50)]
    assert 44 <= sum(low <= truth <= high for low, high in intervals) <= 50  # 95 % of 50 are 47.5


def test_interval_is_deterministic():
    vectors = unit_vectors([[1, 0, 0], [0, 1, 0]], 8, 0.4)
    assert separation_of_first(vectors, 8) == separation_of_first(vectors, 8)


def test_a_single_scene_has_no_verdict():
    vectors = unit_vectors([[1, 0, 0]], 5, 0.2)
    result = separation(vectors @ vectors.T, np.ones(5, dtype=bool))
    assert result.auc is None and result.across is None
    assert "name a second scene" in in_words("chair", result)


def test_sentences_state_verdict_auc_and_similarities():
    vectors = unit_vectors([[1, 0, 0], [0, 1, 0]], 8, 0.1)
    result = separation_of_first(vectors, 8)
    sentence = in_words("chair", result)
    assert sentence.startswith(f"chair: well separated, AUC {result.auc:.3f} [")
    assert f"{result.within.mean:.2f} ± {result.within.standard_deviation:.2f} with each other" in sentence
    assert f"{result.across.mean:.2f} ± {result.across.standard_deviation:.2f} with views of other scenes" in sentence
