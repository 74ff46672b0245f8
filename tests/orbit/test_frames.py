import pytest
import torch

from dietnerf_ns.orbit.frames import depth_range, render_frames
from dietnerf_ns.utils.errors import UserError
from tests.conftest import pinhole_cameras, ring_of_poses

DEVICE = torch.device("cpu")


class FakeModel:
    """Colour and depth depend on where the camera is; the lower half is empty and far away."""

    device = DEVICE

    def __init__(self, suffix="", left_out=()):
        self.suffix, self.left_out = suffix, left_out

    def get_outputs_for_camera(self, camera):
        size = (int(camera.height), int(camera.width), 1)
        x = float(camera.camera_to_worlds[0, 0, 3])
        accumulation = torch.ones(size)
        accumulation[size[0] // 2 :] = 0
        depth = torch.where(accumulation > 0, 5.0 + x, 1000.0)
        outputs = {"rgb": torch.full((*size[:2], 3), 0.5 + x / 10), "depth": depth, "accumulation": accumulation}
        return {name + self.suffix: value for name, value in outputs.items() if name not in self.left_out}


@pytest.fixture
def cameras():
    return pinhole_cameras(ring_of_poses(6, elevation=0, radius=4), width=40, height=30)  # x from -4 to 4


def test_colours_depth_and_both_side_by_side(cameras):
    rgb, depth, both = (list(render_frames(FakeModel(), cameras, shown)) for shown in ("rgb", "depth", "both"))
    assert rgb[0].shape == depth[0].shape == (30, 40, 3) and both[0].shape == (30, 80, 3)
    assert (both[2][:, :40] == rgb[2]).all() and (both[2][:, 40:] == depth[2]).all()
    assert rgb[0][0, 0].tolist() == [230] * 3, "x = 4: 255 (0.5 + 0.4)"
    assert (depth[0][-1] == 255).all(), "nothing there: white"


def test_depth_has_the_same_limits_in_all_frames(cameras):
    assert depth_range(FakeModel(), cameras) == pytest.approx((1, 9), abs=0.2), "of what is opaque"
    frames = [frame[0, 0].tolist() for frame in render_frames(FakeModel(), cameras, "depth")]
    assert frames[0] != frames[1] and frames[1] != frames[2], "another distance has another colour"
    assert frames[1] == frames[5] and frames[2] == frames[4], "the same distance has the same colour"


def test_models_with_a_fine_network(cameras):
    frames = list(render_frames(FakeModel("_fine"), cameras, "both"))
    assert len(frames) == 6 and frames[0].shape == (30, 80, 3)


def test_a_model_without_depth_says_what_it_has(cameras):
    with pytest.raises(UserError, match="renders no depth; it renders rgb, accumulation"):
        next(render_frames(FakeModel(left_out=["depth"]), cameras, "both"))
