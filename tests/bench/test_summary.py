"""Means, deviations and intervals against numbers worked out by hand."""

from dataclasses import replace

import pytest

from dietnerf_ns.bench.summary import of_unseen_images, over_seeds, paired_difference, read_results
from dietnerf_ns.bench.tables import format_difference
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import write_fake_results

PSNR = {
    ("lego", "v", "plain", 0): 20.0,
    ("lego", "v", "plain", 1): 21.0,
    ("ship", "v", "plain", 0): 10.0,
    ("ship", "v", "plain", 1): 12.0,
    ("lego", "v", "diet", 0): 21.0,
    ("lego", "v", "diet", 1): 23.0,
    ("ship", "v", "diet", 0): 13.0,
    ("ship", "v", "diet", 1): 99.0,
}
METRIC = "nerfstudio/psnr"


@pytest.fixture
def results(tmp_path):
    return read_results(write_fake_results(tmp_path, PSNR, missing=[("ship", "v", "diet", 1)]))


def test_mean_over_cells_and_deviation_of_the_seeds_means(results):
    spread = over_seeds(results.of(method="plain"), METRIC)
    assert spread.mean == pytest.approx(15.75)
    assert spread.deviation == pytest.approx(1.06066, abs=1e-5), "of 15 and 16.5"


def test_one_seed_has_no_deviation(results):
    assert over_seeds(results.of(method="plain", seed=0), METRIC).deviation is None
    assert over_seeds(results.of(method="plain"), "nerfstudio/lpips") is None, "not measured"


def test_there_is_no_mean_over_the_cells_that_happen_to_have_a_metric(results):
    rows = results.of(method="plain")
    rows[0] = replace(rows[0], values={"nerfstudio/ssim": 0.5})
    assert over_seeds(rows, METRIC) is None and over_seeds(rows, "nerfstudio/ssim") is not None


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_values_that_are_not_finite_are_left_out_with_the_reason(tmp_path, value):
    results = read_results(write_fake_results(tmp_path, PSNR | {("lego", "v", "plain", 1): value}))
    assert over_seeds(results.of(method="plain"), METRIC) is None
    assert over_seeds(results.of(method="plain"), "training/seconds").mean == 10
    assert over_seeds(results.of(method="diet"), METRIC) is not None
    assert results.rows[1].result["left_out"][METRIC] == f"{value} in cell1"


def test_images_that_are_not_finite_have_no_mean_over_unseen_views(tmp_path):
    write_fake_results(tmp_path, {("lego", "v", "plain", 0): float("inf")}, degrees=(50.0, 60.0))
    (row,) = of_unseen_images(read_results(tmp_path), 45).rows
    assert METRIC not in row.values


def test_each_scene_counts_once_whatever_the_number_of_its_seeds(tmp_path):
    psnr = {("lego", "v", "plain", seed): 20.0 for seed in range(3)} | {("ship", "v", "plain", 0): 10.0}
    assert over_seeds(read_results(write_fake_results(tmp_path, psnr)).rows, METRIC).mean == 15


def test_seeds_that_lack_a_scene_are_left_out_of_the_deviation(results):
    """Seed 0 has two scenes, seed 1 only lego: the difference of their means would be that of the scenes."""
    spread = over_seeds(results.of(method="diet"), METRIC)
    assert spread.mean == pytest.approx(17.5), "of 22 on lego and 13 on ship"
    assert spread.deviation is None
    assert over_seeds(results.of(method="diet", scene="lego"), METRIC).deviation == pytest.approx(2**0.5)


def test_paired_difference_on_one_scene_over_the_seeds_that_both_have(results):
    """Differences 1 and 2: standard deviation 0.70711, Student's t with one degree of freedom 12.7062."""
    difference = paired_difference(results.of(method="diet", scene="lego"), results.of(method="plain"), METRIC)
    assert (difference.mean, difference.n) == (pytest.approx(1.5), 2)
    assert difference.half_width == pytest.approx(12.7062 * 0.70711 / 2**0.5, abs=1e-3)


def test_paired_difference_on_several_scenes_counts_each_scene_once(results):
    """Differences 1 and 2 on lego, 3 on ship: the units are 1.5 and 3, their standard deviation 1.06066."""
    difference = paired_difference(results.of(method="diet"), results.of(method="plain"), METRIC)
    assert (difference.mean, difference.n, difference.pairs) == (pytest.approx(2.25), 2, 3)
    assert format_difference(difference, 1).endswith("(n = 2, 3 pairs)"), "one of four is missing"
    assert difference.half_width == pytest.approx(12.7062 * 1.06066 / 2**0.5, abs=1e-3)


def test_no_interval_from_one_pair_and_nothing_from_none(results):
    plain, diet = results.of(method="plain", seed=0), results.of(method="diet", scene="ship")
    one = paired_difference(diet, plain, METRIC)
    assert (one.mean, one.half_width, one.n) == (pytest.approx(3), None, 1)
    assert paired_difference(diet, results.of(method="plain", seed=1), METRIC) is None


def test_an_image_whose_metric_is_no_number_is_damage(tmp_path):
    write_fake_results(tmp_path, PSNR)
    file = tmp_path / "cells" / "cell0" / "result.json"
    file.write_text(file.read_text().replace('"nerfstudio/ssim": 0.2', '"nerfstudio/ssim": "0.2"', 1))
    with pytest.raises(UserError, match="images.0.nerfstudio/ssim: Input should be a valid number"):
        read_results(tmp_path)


def test_folders_without_results(tmp_path):
    with pytest.raises(UserError, match="no results here"):
        read_results(tmp_path)
    write_fake_results(tmp_path, PSNR, missing=PSNR)
    with pytest.raises(UserError, match="none of the 8 cells is finished"):
        read_results(tmp_path)
