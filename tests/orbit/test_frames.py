import pytest
import torch
from nerfstudio.models.base_model import Model

from dietnerf_ns.orbit import frames
from dietnerf_ns.orbit.frames import depth_range, load_run, median_depth, render_frames
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import pinhole_cameras, ring_of_poses

DEVICE = torch.device("cpu")


class FakeModel(Model):
    """Colour and depth depend on the camera's position. The lower half of each image is empty and far away."""

    device = DEVICE

    def __init__(self, suffix="", missing=()):
        torch.nn.Module.__init__(self)
        self.suffix, self.missing = suffix, missing

    def get_outputs_for_camera(self, camera):
        size = (int(camera.height), int(camera.width), 1)
        x = float(camera.camera_to_worlds[0, 0, 3])
        accumulation = torch.ones(size)
        accumulation[size[0] // 2 :] = 0
        depth = torch.where(accumulation > 0, 5.0 + x, 1000.0)
        outputs = {"rgb": torch.full((*size[:2], 3), 0.5 + x / 10), "depth": depth, "accumulation": accumulation}
        return {name + self.suffix: value for name, value in outputs.items() if name not in self.missing}


@pytest.fixture
def cameras():
    return pinhole_cameras(ring_of_poses(6, elevation=0, radius=4), width=40, height=30)  # x from -4 to 4


def test_colours_depth_and_both_side_by_side(cameras):
    rgb, depth, both = (list(render_frames(FakeModel(), cameras, content)) for content in ("rgb", "depth", "both"))
    assert rgb[0].shape == depth[0].shape == (30, 40, 3) and both[0].shape == (30, 80, 3)
    assert (both[2][:, :40] == rgb[2]).all() and (both[2][:, 40:] == depth[2]).all()
    assert rgb[0][0, 0].tolist() == [230] * 3, "x = 4: 255 (0.5 + 0.4)"
    assert (depth[0][-1] == 255).all(), "transparent pixels are white"


def test_depth_has_the_same_limits_in_all_frames(cameras):
    assert depth_range(FakeModel(), cameras) == pytest.approx((1, 9), abs=0.2), "the range of the opaque pixels"
    assert median_depth(FakeModel(), cameras[:1]) == pytest.approx(9), "x = 4, without the empty half"
    colours = [frame[0, 0].tolist() for frame in render_frames(FakeModel(), cameras, "depth")]
    assert colours[0] != colours[1] and colours[1] != colours[2], "another distance has another colour"
    assert colours[1] == colours[5] and colours[2] == colours[4], "the same distance has the same colour"


def test_models_with_a_fine_network(cameras):
    images = list(render_frames(FakeModel("_fine"), cameras, "both"))
    assert len(images) == 6 and images[0].shape == (30, 80, 3)


def test_a_model_without_depth_names_its_outputs(cameras):
    with pytest.raises(UserError, match="renders no depth; it renders rgb, accumulation"):
        next(render_frames(FakeModel(missing=["depth"]), cameras, "both"))


@pytest.mark.parametrize("content", ["no: run", "- [", ""])
def test_a_file_that_is_not_a_run_cannot_be_loaded(content, tmp_path):
    (tmp_path / "config.yml").write_text(content)
    with pytest.raises(UserError, match="config.yml: not a config.yml that ns-train wrote"):
        load_run(tmp_path / "config.yml")


def test_a_file_with_code_is_refused(tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "config.yml").write_text(f"!!python/object/apply:os.mkdir ['{trace}']")
    with pytest.raises(UserError, match="config.yml, line 1: !!python/object/apply:os.mkdir is refused"):
        load_run(tmp_path / "config.yml")
    assert not trace.exists()


def test_a_configuration_that_lacks_a_setting_cannot_be_loaded(tmp_path):
    text = "!!python/object:nerfstudio.engine.trainer.TrainerConfig {method_name: dietnerf-tiny, pipeline: null}"
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(UserError, match="this run cannot be loaded; .*AttributeError: 'NoneType'"):
        load_run(tmp_path / "config.yml")


@pytest.mark.parametrize("error", [UserError("No checkpoint."), torch.OutOfMemoryError("CUDA out of memory.")])
def test_an_error_that_explains_itself_is_not_replaced(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(frames, "load_pipeline", fail)
    with pytest.raises(type(error)) as caught:
        load_run(tmp_path / "config.yml")
    assert caught.value is error
