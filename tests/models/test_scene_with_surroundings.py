"""An object in a room, trained from a few photos with the defaults alone."""

import json

import pytest
import torch

from dietnerf_ns.geometry.cameras import surround_one_object
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.commands import in_this_process
from tests.helpers.room import BALL_CENTER, room_capture


def around_the_ball(count, turn=0.0):
    low = ring_of_poses(count, center=BALL_CENTER.tolist(), elevation=15, radius=3)
    high = ring_of_poses(count, center=BALL_CENTER.tolist(), elevation=40, radius=3)
    turned = torch.eye(3)
    angle = torch.deg2rad(torch.tensor(turn))
    turned[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return turned @ torch.where(torch.arange(count)[:, None, None] % 2 == 0, low, high)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return room_capture(
        tmp_path_factory.mktemp("room") / "room", around_the_ball(8), test_poses=around_the_ball(4, turn=20.0)
    )


def psnr_of(capture, folder, *settings):
    """Of a short run. With the default seed this one becomes opaque and is restarted after half of its steps."""
    steps = 300
    schedules = [f"--optimizers.{name}.scheduler.max-steps" for name in ("fields", "proposal-networks")]
    trained = in_this_process(
        "ns-train", "dietnerf-tiny", "--data", capture, "--vis", "tensorboard", "--timestamp", "run",
        "--max-num-iterations", steps, "--machine.seed", 2, *(word for flag in schedules for word in (flag, steps)),
        *settings, "nerfstudio-data", cwd=folder,
    )  # fmt: skip
    run = folder / "outputs" / "room" / "dietnerf-tiny" / "run"
    in_this_process("ns-eval", "--load-config", run / "config.yml", "--output-path", folder / "m.json", cwd=folder)
    return json.loads((folder / "m.json").read_text())["results"]["psnr"], trained.stdout


@pytest.mark.slow
def test_an_object_in_a_room_is_reconstructed_by_the_defaults_alone(capture, tmp_path):
    assert surround_one_object(pinhole_cameras(around_the_ball(8)))
    psnr, log = psnr_of(capture, tmp_path)
    assert "Scene: around" in log and "Training collapsed" not in log
    (tmp_path / "nerfacto").mkdir()
    in_nerfactos_space, _ = psnr_of(capture, tmp_path / "nerfacto", "--pipeline.model.scene", "inside-out")
    assert psnr > 18 and psnr > in_nerfactos_space + 2
