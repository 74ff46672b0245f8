"""Photos as phones and cameras write them: orientation, EXIF, size, names, videos."""

import os
import struct
import subprocess

import cv2
import numpy as np
import pytest
from PIL import Image

from dietnerf_ns.data.photos import heif_and_large_photos
from dietnerf_ns.poses.photos import (
    Lens,
    Photo,
    other_files,
    photo_files,
    read_lens,
    read_photos,
    read_video,
    scene_names,
)
from dietnerf_ns.utils.errors import UserError
from tests.helpers.commands import needs_ffmpeg
from tests.helpers.corner import corner_photo, corner_positions

MAKE, MODEL, ORIENTATION, EXIF_IFD, FOCAL_35, PIXELS_X, PIXELS_Y = (
    0x010F,
    0x0110,
    0x0112,
    0x8769,
    0xA405,
    0xA002,
    0xA003,
)


def save(path, size, *, orientation=1, details=None, model="Phone 3"):
    exif = Image.Exif()
    exif[MAKE], exif[MODEL], exif[ORIENTATION] = "Maker", model, orientation
    exif.get_ifd(EXIF_IFD).update(details or {})
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2] = 200  # the stored upper half is bright
    Image.fromarray(pixels).save(path, exif=exif.tobytes())
    return path


def test_orientation_is_applied_and_the_focal_length_is_relative_to_the_diagonal(tmp_path):
    path = save(tmp_path / "a.jpg", (80, 60), orientation=6, details={FOCAL_35: 28})
    ((photo, pixels),) = read_photos([path], 1600, {})
    assert photo.size == (60, 80) and pixels.shape == (80, 60, 3)
    assert pixels[:, -10:].mean() > 180 > 20 > pixels[:, :10].mean()  # turned clockwise: bright at the right
    assert photo.lens.focal_length == pytest.approx(28 / np.hypot(36, 24))
    assert photo.lens.camera == "Maker Phone 3 28"


@pytest.mark.parametrize(
    ("details", "focal_length"),
    [
        ({}, None),
        ({FOCAL_35: 0}, None),
        ({FOCAL_35: 26, PIXELS_X: 4000, PIXELS_Y: 3000}, 26 / np.hypot(36, 24)),
        ({FOCAL_35: 26, PIXELS_X: 3000, PIXELS_Y: 4000}, 26 / np.hypot(36, 24)),  # as stored by some phones
        ({FOCAL_35: 26, PIXELS_X: 4000, PIXELS_Y: 2000}, None),  # the photo was cropped afterwards
    ],
)
def test_a_focal_length_counts_if_it_belongs_to_these_pixels(tmp_path, details, focal_length):
    lens = read_lens(save(tmp_path / "a.jpg", (80, 60), details=details))
    assert lens.focal_length == (None if focal_length is None else pytest.approx(focal_length))


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_photos_of_phones_are_read_upright_with_their_focal_length(tmp_path, orientation):
    with heif_and_large_photos():
        whole = save(tmp_path / "a.heic", (80, 60), orientation=orientation, details={FOCAL_35: 28})
    (tmp_path / "b.heic").write_bytes(whole.read_bytes()[:-200])
    unreadable = {}
    ((photo, pixels),) = read_photos(photo_files(tmp_path), 1600, unreadable)
    assert (photo.name, photo.lens.camera) == ("a.jpg", "Maker Phone 3 28")
    assert photo.lens.focal_length == pytest.approx(28 / np.hypot(36, 24))
    first, last = (pixels[:10], pixels[-10:]) if orientation == 1 else (pixels[:, -10:], pixels[:, :10])
    assert first.mean() > 180 > 20 > last.mean()
    assert list(unreadable) == ["b.heic"] and "this HEIC or AVIF photo is damaged" in unreadable["b.heic"]


def test_photos_share_a_camera_by_exif_and_size():
    phone, other = Lens("Maker Phone 3", 0.6), Lens("Maker Phone 4", 0.6)
    assert Photo("a.jpg", (80, 60), phone).camera == Photo("b.jpg", (80, 60), phone).camera
    assert Photo("a.jpg", (80, 60), phone).camera != Photo("b.jpg", (60, 80), phone).camera
    assert Photo("a.jpg", (80, 60), phone).camera != Photo("b.jpg", (80, 60), other).camera


def test_another_digital_zoom_is_another_camera(tmp_path):
    near, far = (
        read_lens(save(tmp_path / f"{mm}.jpg", (80, 60), details={0x920A: 5.4, FOCAL_35: mm})) for mm in (24, 48)
    )
    assert near.camera != far.camera
    assert far.focal_length == pytest.approx(2 * near.focal_length)


def test_large_photos_are_decoded_small(tmp_path):
    path = tmp_path / "large.jpg"
    Image.new("RGB", (15_000, 12_500), (10, 200, 30)).save(path)  # 187 megapixels: above Pillow's own limit
    ((photo, pixels),) = read_photos([path], 1000, {})
    assert photo.size == (1000, 834) and np.abs(pixels.astype(int) - (10, 200, 30)).max() < 8


def test_a_corrupt_photo_is_left_out_with_a_reason(tmp_path):
    good = save(tmp_path / "a.jpg", (80, 60))
    bad = tmp_path / "b.jpg"
    bad.write_bytes(good.read_bytes()[:300])
    unreadable = {}
    assert [photo.name for photo, _ in read_photos([bad, good], 1600, unreadable)] == ["a.jpg"]
    assert list(unreadable) == ["b.jpg"] and "cannot be read" in unreadable["b.jpg"]


def test_names_are_different_and_have_nothing_that_colmap_does_not_take(tmp_path):
    latin = [os.fsdecode(name) for name in (b"caf\xe9.jpg", b"caf\xe8.jpg")]
    assert scene_names([tmp_path / name for name in latin]) == ["caf__1", "caf__2"]
    paths = [tmp_path / name for name in ("a.jpg", "A.PNG", "a_1.jpg", "my photo #1.jpg", "my photo_1.jpg", "b.jpg")]
    assert scene_names(paths) == ["a_2", "A_3", "a_1", "my_photo_1_1", "my_photo_1_2", "b"]


@pytest.mark.parametrize("seed", range(40))
def test_broken_exif_is_no_error(tmp_path, seed):
    path = save(tmp_path / "a.jpg", (80, 60), details={FOCAL_35: 28, PIXELS_X: 4000, PIXELS_Y: 3000})
    data, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    start = data.index(b"Exif") + 6
    for place in random.integers(start, start + 120, 6):
        data[place] = random.integers(256)
    path.write_bytes(data)
    unreadable = {}
    photos = [photo for photo, _ in read_photos([path], 1600, unreadable)]
    assert len(photos) + len(unreadable) == 1


def test_a_folder_without_photos_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="there are no photos in this folder"):
        photo_files(tmp_path)
    with pytest.raises(UserError, match="there is no such folder or video"):
        photo_files(tmp_path / "missing")
    with pytest.raises(UserError, match="give the folder of the photos, or a video"):
        photo_files(tmp_path / "notes.txt")


def test_what_is_not_read_is_known(tmp_path):
    good = save(tmp_path / "a.jpg", (80, 60))
    for name in ("b.jfif", ".hidden", "Thumbs.db", "._a.jpg"):
        (tmp_path / name).write_bytes(good.read_bytes())
    (tmp_path / "folder.tiff").mkdir()
    (tmp_path / "c.jpg").symlink_to(tmp_path / "annex" / "c.jpg")
    assert [path.name for path in other_files(tmp_path)] == ["b.jfif"]
    unreadable = {}
    assert [photo.name for photo, _ in read_photos(photo_files(tmp_path), 1600, unreadable)] == ["a.jpg"]
    assert list(unreadable) == ["c.jpg"] and "there is no such file" in unreadable["c.jpg"]


@pytest.mark.parametrize("name", [b"clip.mp4", b"caf\xe9.mp4"], ids=["plain", "not UTF-8"])
def test_the_sharpest_frames_of_a_video_are_taken(tmp_path, name):
    path = tmp_path / "clip.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 240))
    sharp = {2, 9}
    for index in range(12):
        frame = corner_photo(corner_positions(12)[index])[0]
        video.write(frame if index in sharp else cv2.GaussianBlur(frame, (0, 0), 4))
    video.release()
    path = path.rename(tmp_path / os.fsdecode(name))
    frames = [photo.name for photo, _ in read_video(path, 2, 1600)]
    assert frames == ["frame_00002.jpg", "frame_00009.jpg"]


@needs_ffmpeg
def test_a_video_without_a_stored_length_is_read(tmp_path):
    path = tmp_path / "clip.mkv"
    frames = ["-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=1.2"]
    command = ["ffmpeg", "-v", "error", *frames, "-c:v", "mpeg4", "-f", "matroska", "pipe:"]
    # ffmpeg cannot go back in a pipe to write the length.
    path.write_bytes(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) <= 0
    photos = [photo for photo, _ in read_video(path, 3, 160)]
    assert [int(photo.name[6:11]) // 4 for photo in photos] == [0, 1, 2]  # one of each third of the 12 frames
    assert {photo.size for photo in photos} == {(160, 120)}


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", *map(str, arguments)], check=True)


@needs_ffmpeg
def test_of_a_video_that_was_cut_without_loss_as_many_frames_are_taken(tmp_path):
    """The file counts frames that come before the cut and cannot be read."""
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=6", "-g", 100, tmp_path / "long.mp4")
    ffmpeg("-ss", 4.5, "-i", tmp_path / "long.mp4", "-c", "copy", tmp_path / "cut.mp4")
    assert cv2.VideoCapture(str(tmp_path / "cut.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) > 30
    assert len(list(read_video(tmp_path / "cut.mp4", 5, 160))) == 5


@needs_ffmpeg
@pytest.mark.parametrize(("sides", "size"), [("4/3", (192, 108)), ("1/2", (144, 216)), ("1/1", (144, 108))])
def test_frames_of_pixels_that_are_not_square_are_stretched(tmp_path, sides, size):
    source = ["-f", "lavfi", "-i", "testsrc=size=144x108:rate=10:duration=1", "-vf", f"setsar={sides}"]
    ffmpeg(*source, tmp_path / "clip.mp4")
    assert {photo.size for photo, _ in read_video(tmp_path / "clip.mp4", 2, 1600)} == {size}


@needs_ffmpeg
def test_frames_that_are_turned_are_stretched_along_the_side_that_was_stored_so(tmp_path):
    source = ["-f", "lavfi", "-i", "testsrc=size=144x108:rate=10:duration=1", "-vf", "setsar=4/3"]
    ffmpeg(*source, tmp_path / "stored.mp4")
    content = bytearray((tmp_path / "stored.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 44  # of the track's header; different versions of ffmpeg turn by different flags
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "clip.mp4").write_bytes(content)
    assert {photo.size for photo, _ in read_video(tmp_path / "clip.mp4", 2, 1600)} == {(108, 192)}


def test_a_video_that_cannot_be_decoded_is_refused(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"clip\.mp4: this video cannot be read: convert it"):
        list(read_video(path, 4, 1600))
