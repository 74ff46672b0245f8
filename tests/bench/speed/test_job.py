from dataclasses import replace

import pytest

from dietnerf_ns.bench.speed.job import whole_job


@pytest.mark.slow
def test_training_and_evaluation_are_timed_and_run_again(small, data, tmp_path):
    few = replace(small, overrides=small.overrides | {"max_num_iterations": 8})
    first, second = (whole_job(few, data, tmp_path) for _ in range(2))
    for result in (first, second):
        assert result["label"] == "ours" and result["training"]["steps"] == 8
        assert result["seconds"] > result["training"]["seconds"] > 0
        assert 0 < result["psnr"] < 40 and -1 <= result["ssim"] <= 1
    assert second["training"]["seconds"] != first["training"]["seconds"], "measured again"
