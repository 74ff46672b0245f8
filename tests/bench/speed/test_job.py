import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dietnerf_ns.bench.cell import RESULT
from dietnerf_ns.bench.speed import job
from dietnerf_ns.bench.speed.candidate import Data
from dietnerf_ns.bench.speed.job import whole_job
from dietnerf_ns.methods import TINY_SCENE


@pytest.fixture
def data_of_cells(monkeypatch) -> list[Path]:
    """Folders of the data of all cells, which get a result without being run."""
    folders = []

    def without_training(cells, out, engine):
        (cell,) = cells
        folders.append(out / cell.train_arguments[cell.train_arguments.index("--data") + 1])
        (out / cell.folder).mkdir(parents=True)
        metrics = dict.fromkeys(job.REPORTED.values(), 0.5)
        (out / cell.folder / RESULT).write_text(json.dumps({"metrics": metrics, "training": {}}))
        return []

    monkeypatch.setattr(job, "run_missing", without_training)
    return folders


def test_a_scene_called_like_the_shipped_one_is_the_one_that_is_run(small, tmp_path, monkeypatch, data_of_cells):
    scene = shutil.copytree(TINY_SCENE, tmp_path / "tiny")
    train = scene / "transforms_train.json"
    train.write_text(json.dumps(json.loads(train.read_text()) | {"camera_angle_x": 0.6}))
    monkeypatch.chdir(tmp_path)
    for given in (scene, Path("tiny"), TINY_SCENE):
        whole_job(small, Data(str(given), scale=0.4), tmp_path)
    own, relative, shipped = (json.loads((folder / train.name).read_text()) for folder in data_of_cells)
    assert own["camera_angle_x"] == relative["camera_angle_x"] == 0.6 != shipped["camera_angle_x"]


@pytest.mark.slow
def test_training_and_evaluation_are_timed_and_run_again(small, data, tmp_path):
    few = replace(small, overrides=small.overrides | {"max_num_iterations": 8})
    first, second = (whole_job(few, data, tmp_path) for _ in range(2))
    for result in (first, second):
        assert result["label"] == "ours" and result["training"]["steps"] == 8
        assert result["seconds"] > result["training"]["seconds"] > 0
        assert 0 < result["psnr"] < 40 and -1 <= result["ssim"] <= 1
    assert second["training"]["seconds"] != first["training"]["seconds"], "measured again"
