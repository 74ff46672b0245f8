"""dietnerf-render orbit as a user types it."""

from dataclasses import fields
from types import SimpleNamespace

import mediapy
import numpy as np
import pytest
from PIL import Image

from dietnerf_ns.commands.render import Orbit
from dietnerf_ns.orbit.files import write_frames
from tests.helpers.cameras import arc_of_poses, pinhole_cameras, ring_of_poses
from tests.helpers.commands import in_this_process, needs_ffmpeg, ns

FRAMES = 12
SMALL = ["--size", 48, 40, "--frames", FRAMES]


def gif_frames(path):
    with Image.open(path) as gif:
        frames = []
        for i in range(gif.n_frames):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")))
    return np.stack(frames)


def steps_between(frames):
    """Mean absolute difference of each frame to the next. The last entry is from the last frame to the first."""
    return np.abs(frames.astype(float) - np.roll(frames, -1, axis=0)).mean(axis=(1, 2, 3))


@needs_ffmpeg
def test_orbit_of_a_trained_run_loops(trained_tiny, tmp_path):
    orbit = ["dietnerf-render", "orbit", *trained_tiny.load, *SMALL]
    output = ns(*orbit, "--output", tmp_path / "o.gif", cwd=trained_tiny.folder).stdout
    assert "theta 0 to 360 degrees, phi 35 degrees, radius 4.03, 48x40 pixels, 12 frames." in output
    frames = gif_frames(tmp_path / "o.gif")
    assert frames.shape == (FRAMES, 40, 48, 3)
    steps = steps_between(frames)
    assert steps.min() > 8, "every frame differs from the next"
    assert steps[-1] <= 1.25 * steps[:-1].max(), "the step from the last frame back to the first is no larger"
    in_this_process(*orbit, "--outputs", "both", "--output", tmp_path / "o.mp4", "--fps", 6, cwd=trained_tiny.folder)
    video = mediapy.read_video(tmp_path / "o.mp4")
    assert video.shape == (FRAMES, 40, 96, 3) and video.metadata.fps == 6
    assert np.abs(video[..., :48, :].astype(float) - frames).mean() < 5, "the same views, compressed"
    assert steps_between(video[..., 48:, :]).min() > 5, "the depth turns as well"


def test_arc_to_a_folder(trained_tiny, tmp_path):
    arc = ["--theta-range", 20, 80, "--phi", 50, "--radius", 3.5, "--size", 40, 40, "--frames", 6]
    where = ["--output", tmp_path / "new" / "frames"]
    in_this_process("dietnerf-render", "orbit", *trained_tiny.load, *arc, *where, cwd=trained_tiny.folder)
    files = sorted((tmp_path / "new" / "frames").iterdir())
    assert [path.name for path in files] == [f"{i:05d}.png" for i in range(6)]
    frames = np.stack([np.asarray(Image.open(path)) for path in files]).astype(float)
    assert np.abs(frames[1] - frames[5]).max() <= 1, "there and back"
    assert np.abs(frames[0] - frames[3]).mean() > 10


def test_front_facing_cameras_give_an_arc_and_a_message(tmp_path, capsys):
    cameras = pinhole_cameras(arc_of_poses((-20, 0, 15)))
    orbit = Orbit(tmp_path / "config.yml", tmp_path / "o.gif", frames=8)
    orbit_cameras = orbit.cameras(cameras, depth=lambda: 1.0)
    output = " ".join(capsys.readouterr().out.split())
    assert "do not surround the scene: theta stays between the outermost" in output
    assert "theta -20 to 15 degrees" in output
    assert (int(orbit_cameras.width[0]), int(orbit_cameras.height[0])) == (40, 30), "the photos' size"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--load-config", "nowhere.yml"], "nowhere.yml: there is no such file"),
        (["--output", "o.avi"], "must end in .mp4 or .gif"),
        (["--output", "config.yml/o.gif"], "cannot be written"),
        (["--size", "0", "40"], "--size (0, 40): must be at least 1 pixel"),
        (["--frames", "1"], "--frames 1: must be at least 2"),
        (["--fps", "0"], "--fps 0.0: must be above 0"),
        (["--phi", "91"], "--phi 91.0: must be from -90 to 90"),
        (["--radius", "0"], "--radius 0.0: must be above 0"),
        (["--theta-range", "5", "5"], "must be two different angles"),
        (["--output", "o" * 300 + ".gif"], "oo.gif: cannot be read or written: File name too long."),
        (["--load-config", "o" * 300], "oo: cannot be read or written: File name too long."),
        ([], "not a config.yml that ns-train wrote"),
    ],
)
def test_wrong_input_ends_with_one_line(arguments, words, tmp_path):
    (tmp_path / "config.yml").write_text("no: run\n")
    valid = {"--load-config": "config.yml", "--output": "o.gif"}
    others = [word for flag, value in valid.items() if flag not in arguments for word in (flag, value)]
    result = in_this_process("dietnerf-render", "orbit", *others, *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert words in result.stdout.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]


def test_ctrl_c_after_the_last_frame_says_that_the_orbit_is_written(tmp_path, monkeypatch):
    def write_and_be_interrupted(_frames, output, _fps):
        output.touch()
        raise KeyboardInterrupt

    photos = SimpleNamespace(cameras=pinhole_cameras(ring_of_poses(4)), image_filenames=[])
    run = SimpleNamespace(datamanager=SimpleNamespace(train_dataset=photos, eval_dataset=None), model=None)
    monkeypatch.setattr("dietnerf_ns.orbit.frames.load_run", lambda _: run)
    monkeypatch.setattr("dietnerf_ns.orbit.frames.render_frames", lambda *_: iter(()))
    monkeypatch.setattr("dietnerf_ns.orbit.files.write_frames", write_and_be_interrupted)
    (tmp_path / "config.yml").touch()
    arguments = ["orbit", "--load-config", "config.yml", "--output", "o.gif"]
    result = in_this_process("dietnerf-render", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1 and result.stdout.splitlines()[-1] == "Interrupted. o.gif was already written."


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_frames_that_a_run_has_as_photos_are_not_replaced(kind, tmp_path, monkeypatch):
    write_frames(iter(np.zeros((2, 4, 4, 3), np.uint8)), tmp_path / "frames", fps=1)
    photos = {name: SimpleNamespace(cameras=None, image_filenames=[]) for name in ("train", "eval")}
    photos[kind].image_filenames = [tmp_path / "frames" / "00000.png"]
    manager = SimpleNamespace(train_dataset=photos["train"], eval_dataset=photos["eval"])
    monkeypatch.setattr("dietnerf_ns.orbit.frames.load_run", lambda _: SimpleNamespace(datamanager=manager))
    (tmp_path / "config.yml").touch()
    arguments = ["orbit", "--load-config", "config.yml", "--output", "frames"]
    result = in_this_process("dietnerf-render", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1 and "holds the photos of this run" in result.stdout.splitlines()[-1]
    assert len(list((tmp_path / "frames").iterdir())) == 2


def test_a_run_started_in_another_folder_says_where_to_start(trained_tiny, tmp_path):
    orbit = ["orbit", *trained_tiny.load, "--output", "o.gif"]
    result = in_this_process("dietnerf-render", *orbit, cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert "in the folder where you trained" in result.stdout.splitlines()[-1]


def test_help_explains_every_setting_in_sentences(tmp_path):
    output = in_this_process("dietnerf-render", "orbit", "--help", cwd=tmp_path).stdout
    output = " ".join(output.replace("│", " ").split())
    assert "Elevation in degrees above the horizon, from -90 to 90. The default is the mean elevation" in output
    for setting in fields(Orbit):
        text = output.split(f"--{setting.name.replace('_', '-')}", 1)[1].split("(default:")[0].split("(required)")[0]
        assert text.rstrip().endswith("."), text
