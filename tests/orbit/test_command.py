"""dietnerf-render orbit as a user types it."""

import mediapy
import numpy as np
import pytest
from PIL import Image

from dietnerf_ns.commands.render import Orbit
from tests.conftest import ns, pinhole_cameras
from tests.orbit.test_turntable import arc_of_poses

FRAMES = 12
SMALL = ["--size", 48, 40, "--frames", FRAMES]


def gif_frames(path):
    with Image.open(path) as gif:
        pictures = []
        for i in range(gif.n_frames):
            gif.seek(i)
            pictures.append(np.asarray(gif.convert("RGB")))
    return np.stack(pictures)


def steps_between(frames):
    """Mean difference of each frame to the next; the last entry is from the last frame to the first."""
    return np.abs(frames.astype(float) - np.roll(frames, -1, axis=0)).mean(axis=(1, 2, 3))


def test_orbit_of_a_trained_run_loops(trained_tiny, tmp_path):
    orbit = ["dietnerf-render", "orbit", *trained_tiny.load, *SMALL]
    said = ns(*orbit, "--output", tmp_path / "o.gif", cwd=trained_tiny.folder).stdout
    assert "theta 0 to 360 degrees, phi 35 degrees, radius 4.03, 48x40 pixels, 12 frames." in said
    frames = gif_frames(tmp_path / "o.gif")
    assert frames.shape == (FRAMES, 40, 48, 3)
    steps = steps_between(frames)
    assert steps.min() > 1, "every frame differs from the next"
    assert steps[-1] <= 1.25 * steps[:-1].max(), "the last step, back to the first frame, is one like the others"
    ns(*orbit, "--outputs", "both", "--output", tmp_path / "o.mp4", "--fps", 6, cwd=trained_tiny.folder)
    video = mediapy.read_video(tmp_path / "o.mp4")
    assert video.shape == (FRAMES, 40, 96, 3) and video.metadata.fps == 6
    assert np.abs(video[..., :48, :].astype(float) - frames).mean() < 6, "the same views, compressed"
    assert steps_between(video[..., 48:, :]).min() > 0.2, "depth turns, too"


def test_arc_to_a_folder(trained_tiny, tmp_path):
    arc = ["--theta-range", 20, 80, "--phi", 50, "--radius", 3.5, "--size", 40, 40, "--frames", 6]
    where = ["--output", tmp_path / "new" / "frames"]
    ns("dietnerf-render", "orbit", *trained_tiny.load, *arc, *where, cwd=trained_tiny.folder)
    files = sorted((tmp_path / "new" / "frames").iterdir())
    assert [path.name for path in files] == [f"{i:05d}.png" for i in range(6)]
    frames = np.stack([np.asarray(Image.open(path)) for path in files]).astype(float)
    assert np.abs(frames[1] - frames[5]).max() <= 1, "there and back"
    assert np.abs(frames[0] - frames[3]).mean() > 1


def test_front_facing_cameras_are_said_and_swung_between(tmp_path, capsys):
    cameras = pinhole_cameras(arc_of_poses((-20, 0, 15)))
    orbit = Orbit(tmp_path / "config.yml", tmp_path / "o.gif", frames=8)
    swung = orbit._cameras(cameras)
    said = " ".join(capsys.readouterr().out.split())
    assert "do not surround the scene: theta swings between" in said and "theta -20 to 15 degrees" in said
    assert (int(swung.width[0]), int(swung.height[0])) == (40, 30), "the photos' size"


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
        ([], "this run cannot be loaded"),
    ],
)
def test_wrong_input_ends_with_one_line(arguments, words, tmp_path):
    (tmp_path / "config.yml").write_text("no: run\n")
    sound = {"--load-config": ["config.yml"], "--output": ["o.gif"]}
    if arguments and arguments[0] in sound:
        sound.pop(arguments[0])
    given = [word for flag, values in sound.items() for word in (flag, *values)]
    result = ns("dietnerf-render", "orbit", *given, *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert words in result.stdout.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]


def test_a_run_started_in_another_folder_says_where_to_start(trained_tiny, tmp_path):
    orbit = ["orbit", *trained_tiny.load, "--output", "o.gif"]
    result = ns("dietnerf-render", *orbit, cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert "in the folder where you trained" in result.stdout.splitlines()[-1]


def test_help_teaches_every_setting(tmp_path):
    said = ns("dietnerf-render", "orbit", "--help", cwd=tmp_path).stdout
    assert "Elevation in degrees above the horizon" in said and "--there-and-back" in said
