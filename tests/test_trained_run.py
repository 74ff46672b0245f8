"""What nerfstudio's commands make of a finished training, as a user types them."""

import contextlib
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.commands import checkpoint, in_this_process, needs_ffmpeg, ns
from tests.helpers.viewer_browser import free_port
from tests.helpers.waiting import wait_until


def test_eval_gives_psnr_and_ssim_and_says_what_is_left_out(trained_tiny, tmp_path):
    written = ["--output-path", tmp_path / "m.json", "--render-output-path", tmp_path / "r"]
    said = ns("ns-eval", *trained_tiny.load, *written, cwd=trained_tiny.folder).stdout
    results = json.loads((tmp_path / "m.json").read_text())["results"]
    assert results["psnr"] >= 29.0 and 0.97 <= results["ssim"] <= 1  # 29.9 to 30.1 and 0.977 to 0.978 reached
    assert f"PSNR {results['psnr']:.2f} dB, SSIM {results['ssim']:.3f}" in said
    assert ("lpips" in results) != ("lpips" in results["left_out"]), "LPIPS is there, or it is said why not"
    assert len(list((tmp_path / "r").glob("eval_img_*.png"))) == 25


def test_checkpoint_holds_the_field_and_no_frozen_network(trained_tiny):
    state = checkpoint(trained_tiny.run)
    groups = {name.removeprefix("_model.").split(".")[0] for name in state["pipeline"]}
    assert groups == {"field", "proposal_networks", "collider", "device_indicator_param", "_extra_state"}
    assert set(state["optimizers"]) == {"fields", "proposal_networks"}


@needs_ffmpeg
def test_render_interpolate_and_camera_path(trained_tiny, tmp_path):
    images = ["--output-format", "images", "--rendered-output-names", "rgb"]
    interpolation = ["--interpolation-steps", 1, "--output-path", tmp_path / "i"]
    in_this_process("ns-render", "interpolate", *trained_tiny.load, *interpolation, *images, cwd=trained_tiny.folder)
    assert len(list((tmp_path / "i").iterdir())) >= 3

    pose = [1, 0, 0, 0, 0, 0, -1, -4, 0, 1, 0, 0, 0, 0, 0, 1]  # from -y, looking along +y
    path = {
        "camera_type": "perspective",
        "render_height": 40,
        "render_width": 60,
        "fps": 2,
        "seconds": 1,
        "camera_path": [{"camera_to_world": pose, "fov": 40, "aspect": 1.5}] * 2,
    }
    (tmp_path / "path.json").write_text(json.dumps(path))
    camera_path = ["--camera-path-filename", tmp_path / "path.json", "--output-path", tmp_path / "p.mp4"]
    ns("ns-render", "camera-path", *trained_tiny.load, *camera_path, cwd=trained_tiny.folder)
    assert (tmp_path / "p.mp4").stat().st_size > 1000


def test_render_spiral_and_dataset(trained_tiny, tmp_path):
    load = [*trained_tiny.load, "--rendered-output-names", "rgb"]
    spiral = ["--output-format", "images", "--seconds", 0.1, "--frame-rate", 20, "--output-path", tmp_path / "s"]
    in_this_process("ns-render", "spiral", *load, *spiral, cwd=trained_tiny.folder)
    assert len(list((tmp_path / "s").iterdir())) == 2
    dataset = ["--split", "train", "--output-path", tmp_path / "d"]
    in_this_process("ns-render", "dataset", *load, *dataset, cwd=trained_tiny.folder)
    rendered = sorted((tmp_path / "d" / "train" / "rgb").iterdir())
    assert len(rendered) == 8, "the kept training views"
    assert np.asarray(Image.open(rendered[0])).shape == (100, 100, 3)


def test_export_pointcloud_tsdf_and_cameras(trained_tiny, tmp_path):
    load, cwd = [*trained_tiny.load, "--output-dir", tmp_path], trained_tiny.folder
    ns("ns-export", "pointcloud", *load, "--num-points", 3000, "--normal-method", "open3d", cwd=cwd)
    assert b"element vertex" in (tmp_path / "point_cloud.ply").read_bytes()[:300]
    in_this_process("ns-export", "tsdf", *load, "--resolution", 32, "--texture-method", "tsdf", cwd=cwd)
    assert (tmp_path / "tsdf_mesh.ply").stat().st_size > 1000
    in_this_process("ns-export", "cameras", *load, cwd=cwd)
    assert len(json.loads((tmp_path / "transforms_train.json").read_text())) == 8


def test_viewer_serves_its_page(trained_tiny):
    port = free_port()
    command = [Path(sys.executable).with_name("ns-viewer"), *trained_tiny.load]
    command += ["--viewer.websocket-port", port, "--viewer.websocket-host", "127.0.0.1"]

    def page():
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as response:
            return response.read()

    with subprocess.Popen(list(map(str, command)), cwd=trained_tiny.folder, stdout=subprocess.DEVNULL) as viewer:
        try:
            assert b"<title>" in wait_until(page, "the viewer's page")
            assert viewer.poll() is None, "it keeps running"
        finally:
            viewer.kill()
