import shutil
import signal
import subprocess

import mediapy
import numpy as np
import psutil
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dietnerf_ns.orbit.files import check_holds_no_photos, check_output, write_frames
from dietnerf_ns.utils.errors import UserError
from tests.helpers.commands import needs_ffmpeg
from tests.helpers.full_disk import files_of_at_most


def grey_frames(count=5, height=20, width=30):
    for i in range(count):
        yield np.full((height, width, 3), 40 * i, dtype=np.uint8)


def failing_frames():
    yield from grey_frames(2)
    raise RuntimeError("out of memory")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_gif_has_every_frame_loops_and_keeps_its_duration(tmp_path):
    write_frames(grey_frames(), tmp_path / "o.gif", fps=30)
    with Image.open(tmp_path / "o.gif") as gif:
        assert gif.n_frames == 5 and gif.size == (30, 20) and gif.info["loop"] == 0
        durations, greys = [], []
        for i in range(5):
            gif.seek(i)
            durations.append(gif.info["duration"])
            greys.append(gif.convert("RGB").getpixel((3, 3))[0])
    assert durations == [30, 40, 30, 30, 40], "170 ms instead of 166.7 ms"
    assert greys == [0, 40, 80, 120, 160]


@needs_ffmpeg
def test_mp4_has_all_frames_the_frame_rate_and_even_sides(tmp_path):
    write_frames(grey_frames(height=21, width=31), tmp_path / "o.mp4", fps=10)
    video = mediapy.read_video(tmp_path / "o.mp4")
    assert video.shape == (5, 20, 30, 3) and video.metadata.fps == 10
    assert np.abs(video.mean(axis=(1, 2, 3)) - [0, 40, 80, 120, 160]).max() < 2
    probe = ["ffprobe", "-v", "error", "-show_entries", "stream=pix_fmt", "-of", "csv=p=0", tmp_path / "o.mp4"]
    assert subprocess.run(probe, capture_output=True, text=True, check=True).stdout.strip() == "yuv420p"


def test_folder_is_replaced_with_its_content(tmp_path):
    write_frames(grey_frames(5), tmp_path / "frames", fps=1)
    write_frames(grey_frames(3), tmp_path / "frames", fps=1)
    assert names_in(tmp_path / "frames") == ["00000.png", "00001.png", "00002.png"]
    assert np.asarray(Image.open(tmp_path / "frames" / "00002.png")).mean() == 80


@pytest.mark.parametrize("name", ["o.gif", pytest.param("o.mp4", marks=needs_ffmpeg), "frames"])
def test_a_failed_run_leaves_the_existing_output_unchanged(name, tmp_path):
    output = tmp_path / name
    write_frames(grey_frames(), output, fps=10)
    before = (output / "00004.png" if output.is_dir() else output).read_bytes()
    with pytest.raises(RuntimeError):
        write_frames(failing_frames(), output, fps=10)
    assert (output / "00004.png" if output.is_dir() else output).read_bytes() == before
    assert names_in(tmp_path) == [name]


@needs_ffmpeg
def test_a_failed_first_run_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        write_frames(failing_frames(), tmp_path / "o.mp4", fps=10)
    assert names_in(tmp_path) == []


def test_a_full_disk_is_a_user_error(tmp_path):
    def frames():
        yield from grey_frames(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        write_frames(frames(), tmp_path / "o.gif", fps=10)


@needs_ffmpeg
@pytest.mark.parametrize("count", [5, 200])  # ffmpeg notices at the end, or while frames are written
def test_a_full_disk_for_a_video_is_a_user_error(tmp_path, count):
    noise = np.random.default_rng(0).integers(0, 255, (count, 120, 160, 3), np.uint8)
    with files_of_at_most(100), pytest.raises(UserError) as error:
        write_frames(iter(noise), tmp_path / "o.mp4", fps=10)
    assert str(error.value).startswith(f"--output {tmp_path / 'o.mp4'}: cannot be written: Error writing")
    assert "\n" not in str(error.value) and names_in(tmp_path) == []


@needs_ffmpeg
def test_ctrl_c_ends_a_video_although_it_ends_ffmpeg_too(tmp_path):
    def frames():
        yield from grey_frames(2)
        (ffmpeg,) = [child for child in psutil.Process().children() if child.name() == "ffmpeg"]
        ffmpeg.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(frames(), tmp_path / "o.mp4", fps=10)
    assert names_in(tmp_path) == []


def test_frames_that_somebody_looked_at_are_replaced(tmp_path):
    write_frames(grey_frames(5), tmp_path / "frames", fps=1)
    (tmp_path / "frames" / ".DS_Store").touch()
    check_output(tmp_path / "frames", fps=1)
    write_frames(grey_frames(3), tmp_path / "frames", fps=1)
    assert len(names_in(tmp_path / "frames")) == 3


def test_frames_that_a_run_was_trained_on_are_kept(tmp_path):
    write_frames(grey_frames(5), tmp_path / "frames", fps=1)
    photos = sorted((tmp_path / "frames").iterdir())
    with pytest.raises(UserError, match="holds the photos of this run"):
        check_holds_no_photos(tmp_path / "other" / ".." / "frames", photos)
    check_holds_no_photos(tmp_path / "turntable", photos)


def test_frames_of_which_a_run_took_smaller_copies_are_kept(tmp_path):
    with pytest.raises(UserError, match="holds the photos of this run"):
        check_holds_no_photos(tmp_path / "images", [tmp_path / "images_4" / "00000.png"])
    check_holds_no_photos(tmp_path / "lego", [tmp_path / "lego_1" / "00000.png"])


def test_a_file_that_is_no_image_is_no_frame(tmp_path):
    """A text of this size in a PNG is a ValueError of Pillow, and this number of pixels an error of its own."""
    (tmp_path / "frames").mkdir()
    large = PngInfo()
    large.add_text("note", "x" * 2**21, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "frames" / "00000.png", pnginfo=large)
    with pytest.raises(UserError, match="such as 00000.png"):
        check_output(tmp_path / "frames", fps=1)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "frames" / "00000.png")
    with pytest.raises(UserError, match="such as 00000.png"):
        check_output(tmp_path / "frames", fps=1)


def test_a_gif_that_lasts_too_long_is_refused(tmp_path):
    """The duration of equal frames has 16 bits."""
    with pytest.raises(UserError, match="--fps 0.01: with 30 frames a GIF needs at least 0.046 frames per second"):
        check_output(tmp_path / "o.gif", fps=0.01, frames=30)
    check_output(tmp_path / "o.gif", fps=0.05, frames=30)
    write_frames((frame for frame in [np.zeros((4, 4, 3), np.uint8)] * 30), tmp_path / "o.gif", fps=0.05)


def test_checking_leaves_an_existing_output_unchanged(tmp_path):
    (tmp_path / "o.gif").write_bytes(b"good")
    check_output(tmp_path / "o.gif", fps=10)
    check_output(tmp_path / "new" / "frames", fps=10)
    assert (tmp_path / "o.gif").read_bytes() == b"good" and names_in(tmp_path / "new") == []


def test_outputs_that_cannot_be_written_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / "00000.png")
    for name, words in {
        "o.avi": "must end in .mp4 or .gif",
        "file/o.gif": "cannot be written",
        "file": "is a file",
        "full": "thesis.tex",
        "photos": "holds other files than frames that this command marked as its own, such as 00000.png",
    }.items():
        with pytest.raises(UserError, match=words):
            check_output(tmp_path / name, fps=10)
    with pytest.raises(UserError, match="at most 50"):
        check_output(tmp_path / "o.gif", fps=60)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(UserError, match="needs ffmpeg"):
        check_output(tmp_path / "o.mp4", fps=60)
