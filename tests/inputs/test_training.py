"""Inputs as the commands meet them: exit status, last line, and that nothing was trained on a wrong reading."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from tests.helpers.commands import checkpoint, in_this_process
from tests.helpers.inputs import base_meta, on_white, write_capture

SHORT = ["--max-num-iterations", 2, "--vis", "tensorboard", "--timestamp", "run", "--pipeline.semantic.weight", 0]
SHORT += ["--pipeline.datamanager.train-num-rays-per-batch", 64]


def cmyk(rgba, path, number):
    Image.fromarray(on_white(rgba)).convert("CMYK").save(path, quality=95)


def half_size(rgba, path, number):
    Image.fromarray(on_white(rgba)).resize((50, 50)).save(path)


def nan_pose() -> dict:
    meta = base_meta()
    meta["frames"][1]["transform_matrix"][0][0] = float("nan")
    return meta


REFUSED = {
    "photos of another size": ({"save": half_size}, "0.png is 50x50 (width x height), but its camera is 100x100"),
    "pose that is not finite": ({"meta": nan_pose()}, "frame images/1.png: transform_matrix has a number"),
    "focal length of 0": ({"meta": base_meta() | {"fl_x": 0}}, "fl_x is 0; it must be a finite number above 0"),
}


def refused(result) -> str:
    """The last line of a command that found a mistake."""
    assert result.returncode == 1 and "Traceback" not in result.stdout
    return result.stdout.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("capture", "message"), REFUSED.values(), ids=REFUSED)
def test_training_ends_with_one_line_and_status_1(tmp_path, capture, message):
    folder = write_capture(tmp_path / "photos", **capture)
    arguments = ["dietnerf-tiny", *SHORT, "--data", folder, "nerfstudio-data"]
    assert message in refused(in_this_process("ns-train", *arguments, cwd=tmp_path, check=False))
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.slow
def test_similarity_ends_with_the_same_line(tmp_path):
    folder, other = write_capture(tmp_path / "photos", meta=nan_pose()), write_capture(tmp_path / "other")
    arguments = [folder, other, "--out", tmp_path / "report"]
    message = REFUSED["pose that is not finite"][1]
    assert message in refused(in_this_process("dietnerf-similarity", *arguments, cwd=tmp_path, check=False))


@pytest.mark.slow
def test_cmyk_photos_train_on_their_colours(tmp_path):
    """They were taken for RGBA with black as alpha: an empty scene whose loss is 0."""
    folder = write_capture(tmp_path / "photos", save=cmyk, suffix=".jpg")
    result = in_this_process("ns-train", "dietnerf-tiny", *SHORT, "--data", folder, "nerfstudio-data", cwd=tmp_path)
    assert "Scene: object" in result.stdout and "RGB (1.00, 1.00, 1.00)" in result.stdout


def trained_tensors(run) -> list[torch.Tensor]:
    """All tensors of a checkpoint but the radius of the sampled space, which is infinite when it has grown."""
    state = checkpoint(run)["pipeline"]
    return [v for name, v in state.items() if isinstance(v, torch.Tensor) and not name.endswith("collider.radius")]


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1e-6, 1e6])
def test_extreme_weights_of_the_semantic_loss_stay_finite(tmp_path, weight):
    arguments = ["dietnerf-tiny", *SHORT, "--max-num-iterations", 12, "--pipeline.semantic.weight", weight]
    arguments += ["--pipeline.semantic.every", 3, "--pipeline.semantic.resolution", 32]
    result = in_this_process("ns-train", *arguments, cwd=tmp_path)
    assert "not finite" not in result.stdout
    assert all(t.isfinite().all() for t in trained_tensors(tmp_path / "outputs/unnamed/dietnerf-tiny/run"))


@pytest.mark.slow
def test_photos_of_two_pixels_train(tmp_path):
    def tiny(rgba, path, number):
        Image.fromarray(on_white(rgba)).resize((2, 2)).save(path)

    meta = base_meta()
    meta |= {key: meta[key] / 50 for key in ("fl_x", "fl_y", "cx", "cy")} | {"w": 2, "h": 2}
    folder = write_capture(tmp_path / "photos", save=tiny, meta=meta)
    in_this_process("ns-train", "dietnerf-tiny", *SHORT, "--data", folder, "nerfstudio-data", cwd=tmp_path)
    assert all(t.isfinite().all() for t in trained_tensors(tmp_path / "outputs/photos/dietnerf-tiny/run"))
