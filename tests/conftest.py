"""Shared scenes, cameras and a fake encoder; and the real command line."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Threads of one process that wait for work by spinning keep those of another from theirs: tests start processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import pytest
import torch
from filelock import FileLock
from nerfstudio.cameras.cameras import Cameras, CameraType

from dietnerf_ns.geometry.sphere import Sphere
from dietnerf_ns.methods import TINY_SCENE, dietnerf_tiny
from dietnerf_ns.pipeline import DietNeRFPipelineConfig
from dietnerf_ns.semantic.encoders import ImageEncoder
from dietnerf_ns.semantic.poses import pose_on_sphere

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_scene(name: str) -> Path:
    """A real scene beside the repository; the test is skipped where it is absent."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the real scene {name} is not on this machine ({path})")
    return path


def ns(
    command: str, *arguments: object, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess:
    """Run a real nerfstudio command of this environment and return its output, stderr merged in."""
    executable = Path(sys.executable).with_name(command)
    result = subprocess.run(
        [str(executable), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "400"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert not check or result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout[-4000:]}"
    return result


def ring_of_poses(count: int, *, center=(0.0, 0.0, 0.0), elevation: float = 30.0, radius: float = 4.0) -> torch.Tensor:
    """Camera-to-world matrices [count, 3, 4] around a centre, evenly in azimuth, all looking at it, +z up."""
    poses = []
    for index in range(count):
        azimuth = 360.0 * index / count
        sphere = Sphere(
            torch.tensor(center),
            torch.tensor([0.0, 0.0, 1.0]),
            radius_range=(radius, radius),
            elevation_range=(elevation, elevation),
            azimuth_range=(azimuth, azimuth),
        )
        poses.append(pose_on_sphere(sphere, torch.Generator()))
    return torch.stack(poses)


def pinhole_cameras(poses: torch.Tensor, *, width: int = 40, height: int = 30, focal: float = 35.0) -> Cameras:
    return Cameras(
        poses,
        fx=focal,
        fy=focal,
        cx=width / 2,
        cy=height / 2,
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
    )


class FakeEncoder(ImageEncoder):
    """Not a network: an image's mean colour minus grey, as a unit vector. Differentiable and hand-computable."""

    def preprocess(self, images):
        return images - 0.5

    def embed(self, inputs):
        return torch.nn.functional.normalize(inputs.mean(dim=(2, 3)), dim=-1)


@dataclass(frozen=True)
class TrainedRun:
    """What a real `ns-train` left behind. nerfstudio's paths are relative: commands run in the same `folder`."""

    folder: Path
    run: Path

    @property
    def load(self) -> list[object]:
        return ["--load-config", self.run / "config.yml"]


@pytest.fixture(scope="session")
def trained_tiny(tmp_path_factory, worker_id) -> TrainedRun:
    """The README's first command: `ns-train dietnerf-tiny`, to its end, once for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "trained_tiny"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            ns("ns-train", "dietnerf-tiny", "--timestamp", "run", cwd=folder)
    return TrainedRun(folder, folder / "outputs" / "unnamed" / "dietnerf-tiny" / "run")


@pytest.fixture
def tiny_pipeline_config() -> DietNeRFPipelineConfig:
    """dietnerf-tiny's pipeline; a copy, for nerfstudio writes the data's path into the configuration it is given."""
    return copy.deepcopy(dietnerf_tiny.config.pipeline)


@pytest.fixture
def tiny_scene() -> Path:
    return TINY_SCENE


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
