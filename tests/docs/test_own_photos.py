"""docs/known-poses.md and own-photos.md, as they are written: the code comes from the pages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mediapy
import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.geometry.sphere import fit_sphere
from tests.helpers.markdown import code_blocks, section

PAGE = "known-poses.md"
SHORT = {  # the same commands with less to do
    "ns-train dietnerf-tiny": "ns-train dietnerf-tiny --max-num-iterations 10 --vis tensorboard",
    "dietnerf-render orbit": "dietnerf-render orbit --frames 6 --size 60 60",
}


def example_in_page() -> dict:
    return json.loads(code_blocks(section(PAGE, "The file transforms.json"), "json")[0])


@pytest.mark.slow
def test_photos_with_known_poses_become_a_turntable(tmp_path):
    script = "".join(code_blocks(section(PAGE, "Try it with the shipped photos"), "bash"))
    for command, shorter in SHORT.items():
        assert command in script
        script = script.replace(command, shorter)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "COLUMNS": "400"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    recognised = code_blocks(section("own-photos.md", "What is recognised"), "")[0]
    assert " ".join(recognised.split()) in " ".join(said.split())
    video = mediapy.read_video(tmp_path / "turntable.mp4")
    assert video.shape == (6, 60, 60, 3)
    assert all(np.abs(frame.astype(float) - video[0]).mean() > 0.5 for frame in video[1:]), "it turns"


def test_the_example_transforms_json_is_complete(tmp_path):
    example = example_in_page()
    (tmp_path / "images").mkdir()
    for frame in example["frames"]:
        Image.new("RGB", (example["w"], example["h"])).save(tmp_path / frame["file_path"])
    (tmp_path / "transforms.json").write_text(json.dumps(example))
    as_written = {"orientation_method": "none", "center_method": "none", "auto_scale_poses": False}
    cameras = NerfstudioDataParserConfig(data=tmp_path, **as_written).setup().get_dataparser_outputs("train").cameras
    sphere = fit_sphere(cameras.camera_to_worlds)
    assert torch.allclose(sphere.center, torch.zeros(3), atol=1e-4), "both look at the origin"
    assert torch.allclose(sphere.up, torch.tensor([0.0, 0.0, 1.0]), atol=1e-4)
    assert sphere.radius_range == (4, 4)


def test_look_at_gives_the_example_s_matrices():
    defined = {}
    exec(code_blocks(section(PAGE, "The file transforms.json"), "python")[0], defined)
    front, right = (frame["transform_matrix"] for frame in example_in_page()["frames"])
    assert np.allclose(defined["look_at"]((0, -4, 0), (0, 0, 0)), front)
    assert np.allclose(defined["look_at"]((4, 0, 0), (0, 0, 0)), right)
