"""The whole way of somebody with a few photos: poses, training, turntable, with the commands of the README."""

import json
import shutil

import mediapy
import numpy as np
import pytest

from tests.helpers.commands import ns
from tests.helpers.corner import corner_photos
from tests.helpers.scenes import shared_scene


def photos_of_a_corner(folder):
    corner_photos(folder, 5)


def photos_of_fern(folder):
    source = shared_scene("fern")
    folder.mkdir()
    for frame in json.loads((source / "transforms.json").read_text())["frames"][::3][:6]:
        shutil.copy(source / frame["file_path"], folder)


@pytest.mark.slow
@pytest.mark.parametrize("write_photos", [photos_of_a_corner, photos_of_fern])
def test_photos_become_a_turntable(tmp_path, write_photos):
    write_photos(tmp_path / "photos")
    ns("dietnerf-poses", "photos/", "--output", "scene/", "--size", 160, cwd=tmp_path)
    short = ["--max-num-iterations", 60, "--pipeline.model.members", 1, "--vis", "tensorboard"]
    trained = ns(
        "ns-train", "dietnerf-tiny", *short, "--data", "scene/", "--timestamp", "run", "nerfstudio-data", cwd=tmp_path
    )
    assert "Training Finished" in trained.stdout
    run = "outputs/scene/dietnerf-tiny/run/config.yml"
    orbit = ["--output", "turntable.gif", "--size", 40, 30, "--frames", 6]
    said = ns("dietnerf-render", "orbit", "--load-config", run, *orbit, cwd=tmp_path).stdout
    assert "theta stays between the outermost" in said
    frames = mediapy.read_video(tmp_path / "turntable.gif")
    assert frames.shape == (6, 30, 40, 3)
    steps = np.abs(frames.astype(float) - np.roll(frames, 1, axis=0)).mean(axis=(1, 2, 3))
    assert steps.min() > 0.5, "the camera moves"
