"""The training of a cell whose time is limited."""

import copy
import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils import profiler, writer
from scipy.spatial.transform import Rotation

from dietnerf_ns.bench.cells import plan_cells
from dietnerf_ns.bench.train_cell import TimeLimit, check_validation, degrees_to_nearest, train
from dietnerf_ns.methods import dietnerf_tiny
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import experiment
from tests.helpers.scenes import as_transforms_json

PLAIN = {
    "pipeline.semantic.weight": 0,
    "pipeline.datamanager.train-num-rays-per-batch": 16,
    "steps-per-eval-batch": 100_000,
}


@pytest.fixture
def train_here(tmp_path, monkeypatch):
    """Train a cell of the shipped scene in this process."""
    monkeypatch.chdir(tmp_path)
    for module, name, value in (
        (writer, "EVENT_WRITERS", []),
        (writer, "EVENT_STORAGE", []),
        (writer, "GLOBAL_BUFFER", {}),
        (profiler, "PROFILER", []),
    ):
        monkeypatch.setattr(module, name, value)

    def run(seconds, steps):
        settings = PLAIN | {"max-num-iterations": steps}
        content = {"resolution": 8, "views": [{"count": 1}], "seconds": seconds, "overrides": settings}
        (cell,) = plan_cells(experiment(tmp_path, **content), None, tmp_path)
        with torch.random.fork_rng():
            return cell, train(cell)

    return run


def test_training_ends_when_its_steps_have_taken_their_time(train_here):
    cell, training = train_here(seconds=0.3, steps=100_000)
    assert 1 < training["steps"] < 1000 and training["configured_steps"] == 100_000
    assert 0.3 <= training["step_seconds"] <= training["seconds"]
    (checkpoint,) = cell.config_file.parent.glob("nerfstudio_models/*.ckpt")
    assert checkpoint.stem == f"step-{training['steps'] - 1:09d}", "the last step that was done"
    saved = yaml.load(cell.config_file.read_text(), Loader=yaml.Loader)
    assert saved.max_num_iterations == 100_000, "schedules follow the configured steps"


def test_training_ends_earlier_when_its_steps_are_done(train_here):
    _, training = train_here(seconds=600, steps=3)
    assert training["steps"] == 3 and training["step_seconds"] < 600


@pytest.mark.parametrize(
    "listed, refused",
    [({}, True), ({"train_filenames": [0, 1, 2], "val_filenames": [3], "test_filenames": [4]}, False)],
)
def test_validation_frames_that_are_the_test_frames_are_refused(tmp_path, tiny_scene, listed, refused):
    folder = as_transforms_json(tiny_scene, tmp_path / "garden", 5)
    meta = json.loads((folder / "transforms.json").read_text())
    meta |= {name: [meta["frames"][index]["file_path"] for index in frames] for name, frames in listed.items()}
    (folder / "transforms.json").write_text(json.dumps(meta))
    config = copy.deepcopy(dietnerf_tiny.config)
    config.data, config.pipeline.datamanager.dataparser = folder, NerfstudioDataParserConfig()
    with pytest.raises(UserError, match="validation frames are its test frames") if refused else nullcontext():
        check_validation(config)


def test_degrees_to_the_nearest_photo():
    """Cameras around the y axis: the first evaluated one looks 30 degrees away from a photo, the second along one."""

    def around_y(*degrees: float) -> torch.Tensor:
        rotations = torch.tensor(
            Rotation.from_euler("y", np.array(degrees)[:, None], degrees=True).as_matrix(), dtype=torch.float32
        )
        return torch.cat([rotations, torch.randn(len(degrees), 3, 1)], dim=2)

    angles = degrees_to_nearest(around_y(-20, 100, 190), around_y(10, 100))
    assert angles.tolist() == pytest.approx([30, 0, 90], abs=1e-4)


def test_only_the_steps_count_with_all_their_callbacks(monkeypatch):
    now = 0.0
    monkeypatch.setattr("dietnerf_ns.bench.train_cell.time", SimpleNamespace(perf_counter=lambda: now))

    def work(step):
        nonlocal now
        now += 2

    places = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
    trainer = Trainer(copy.deepcopy(dietnerf_tiny.config))
    trainer.callbacks, trainer.stop_training = [TrainingCallback(places, work)], False
    limit = TimeLimit(10)
    limit.watch(trainer)
    stopped = []
    for step in range(3):
        for place in places:
            for callback in trainer.callbacks:
                callback.run_callback_at_location(step, place)
        stopped.append(trainer.stop_training)
        now += 100  # an evaluation
    assert stopped == [False, False, True] and (limit.steps, limit.step_seconds) == (3, 12)
