"""The photos to be posed: files in a folder or frames of a video, upright, with what their EXIF says of the camera."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from dietnerf_ns.data.photos import HEIF_SUFFIXES, IMAGE_ERRORS, SUFFIXES, Size, heif_and_large_photos, read_photo
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import OF_FILE_MANAGERS
from dietnerf_ns.utils.images import downscale_by_area

PHOTO_SUFFIXES = (*SUFFIXES, *HEIF_SUFFIXES)
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
DIAGONAL_OF_35MM = math.hypot(36, 24)
MAKE, MODEL, EXIF_IFD = 0x010F, 0x0110, 0x8769
FOCAL_LENGTH, FOCAL_LENGTH_35MM, LENS, PIXELS_X, PIXELS_Y = 0x920A, 0xA405, 0xA434, 0xA002, 0xA003
FOCAL_LENGTHS = (0.3, 10.0)
"""Focal lengths that a photo can have, relative to its longer side."""
SHAPE_TOLERANCE = 0.01
SIDE_OF_SHARPNESS = 480


@dataclass(frozen=True)
class Lens:
    """What a photo's EXIF says of its camera."""

    camera: str
    """Photos with the same value were taken with one camera and one zoom. Empty if the photo does not say."""
    focal_length: float | None
    """Relative to the photo's diagonal, or None."""


@dataclass(frozen=True)
class Photo:
    """A photo that could be read."""

    name: str
    """File name in the scene."""
    size: Size
    """Of the upright photo, as large as it was read."""
    lens: Lens
    file: Path | None = None
    """None for a frame of a video."""

    @property
    def camera(self) -> str:
        """Photos with the same value share their intrinsics: one camera and one size."""
        return f"{self.lens.camera} {self.size[0]}x{self.size[1]}"


Pixels = UInt8[np.ndarray, "height width channels"]
"""RGB, or RGBA with straight alpha, 0 to 255."""


def photo_files(source: Path) -> list[Path]:
    """The image files in a folder, by name, without hidden ones.

    Raises:
        UserError: there is no such folder, or there are no photos in it.
    """
    if not source.exists():
        raise UserError(f"{source}: there is no such folder or video.")
    if source.is_file():
        raise UserError(f"{source}: give the folder of the photos, or a video ({', '.join(VIDEO_SUFFIXES)}).")
    files = sorted(path for path in _files_in(source) if path.suffix.lower() in PHOTO_SUFFIXES)
    if not files:
        raise UserError(f"{source}: there are no photos in this folder ({', '.join(PHOTO_SUFFIXES)}).")
    return files


def other_files(source: Path) -> list[Path]:
    """The files in a folder that are not taken for photos, by name; without hidden ones and those of file managers."""
    files = (path for path in _files_in(source) if path.suffix.lower() not in PHOTO_SUFFIXES)
    return sorted(path for path in files if path.name not in OF_FILE_MANAGERS)


def _files_in(folder: Path) -> Iterator[Path]:
    """The files in a folder that are not hidden, and links to files that are missing, which reading them says."""
    named = (path for path in folder.iterdir() if not path.name.startswith("."))
    return (path for path in named if path.is_file() or (path.is_symlink() and not path.exists()))


def is_video(source: Path) -> bool:
    """Whether the source is a video file, by its suffix."""
    return source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES


def read_photos(files: Sequence[Path], longest: int, unreadable: dict[str, str]) -> Iterator[tuple[Photo, Pixels]]:
    """Read photos one by one, upright, reduced to at most `longest` pixels along the longer side.

    Args:
        files: image files; HEIC needs the package pillow-heif.
        longest: in pixels.
        unreadable: is given the reason for each file that cannot be read.
    """
    names = scene_names(files)
    with heif_and_large_photos():
        for path, name in zip(tqdm(files, "Reading photos", unit="photo"), names, strict=True):
            try:
                pixels = reduced(read_photo(path, at_least=longest), longest)
                lens = read_lens(path)
            except UserError as error:
                unreadable[path.name] = str(error)
                continue
            yield Photo(name + (".png" if pixels.shape[-1] == 4 else ".jpg"), _size(pixels), lens, path), pixels


def scene_names(files: Sequence[Path]) -> list[str]:
    """Names of photos in the scene without suffix, all different: the files', without what COLMAP cannot take.

    Where two files have the same name but for the suffix or such characters, they are numbered.
    """
    stems = [_scene_stem(path) for path in files]
    counts = Counter(stem.lower() for stem in stems)
    taken = {stem.lower() for stem in stems if counts[stem.lower()] == 1}
    names = []
    for stem in stems:
        numbered = (f"{stem}_{number}" for number in itertools.count(1))
        name = stem if counts[stem.lower()] == 1 else next(name for name in numbered if name.lower() not in taken)
        taken.add(name.lower())
        names.append(name)
    return names


def _scene_stem(path: Path) -> str:
    """A file's name without suffix and without what COLMAP cannot take: characters that its lists of names cannot
    hold, and bytes that are not UTF-8."""
    return re.sub(r"[\s#\ud800-\udfff]+", "_", path.stem)


def read_video(video: Path, count: int, longest: int) -> Iterator[tuple[Photo, Pixels]]:
    """The sharpest frame of each of `count` equal parts of a video, reduced as in `read_photos`.

    Sharpness is the variance of the Laplacian of the luminance (Pech-Pacheco et al., ICPR 2000).

    Raises:
        UserError: the video cannot be decoded.
    """
    with _plainly_named(video) as link:
        sharpest = _sharpest_frames(link, count, longest)
    if not sharpest:
        raise UserError(f"{video}: this video cannot be read: convert it to H.264 in an .mp4 file.")
    for index, frame in sharpest:
        pixels = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        yield Photo(f"frame_{index:05d}.jpg", _size(pixels), Lens("video", None)), pixels


@contextlib.contextmanager
def _plainly_named(video: Path) -> Iterator[Path]:
    """The video under a name in ASCII: OpenCV crashes at a name that is not UTF-8."""
    with tempfile.TemporaryDirectory(prefix="dietnerf-poses-") as folder:
        link = Path(folder, "video").with_suffix(video.suffix)
        link.symlink_to(video.resolve())
        yield link


def _sharpest_frames(video: Path, count: int, longest: int) -> list[tuple[int, Pixels]]:
    """The sharpest frame of each part of a video that can be read, with its number."""
    total = _num_frames(video)
    capture = cv2.VideoCapture(str(video))
    sides = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180:  # frames are turned, the sides of stored pixels are not
        sides = sides[::-1]
    best: dict[int, tuple[float, int, Pixels]] = {}
    for index in tqdm(range(total), "Reading video", unit="frame"):
        is_read, frame = capture.read()
        if not is_read:
            break
        part, sharpness = index * count // total, _sharpness(frame)
        if part not in best or sharpness > best[part][0]:
            best[part] = sharpness, index, reduced(_with_square_pixels(frame, *sides), longest)
    capture.release()
    return [best[part][1:] for part in sorted(best)]


def _num_frames(video: Path) -> int:
    """Frames that can be read. The number in the file may count others, such as those that were cut off."""
    capture = cv2.VideoCapture(str(video))
    total = sum(1 for _ in tqdm(iter(capture.grab, False), "Counting frames", unit="frame", leave=False))
    capture.release()
    return total


def _with_square_pixels(
    frame: Pixels, width: float, height: float
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """A frame whose pixels have these sides, 0 if they are not known, stretched along the shorter one."""
    if width <= 0 or height <= 0 or width == height:
        return frame
    stretch = max(1.0, width / height), max(1.0, height / width)
    return cv2.resize(frame, None, fx=stretch[0], fy=stretch[1], interpolation=cv2.INTER_LINEAR)


def _sharpness(frame: Pixels) -> float:
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    factor = SIDE_OF_SHARPNESS / max(gray.shape)
    small = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else gray
    return float(cv2.Laplacian(small, cv2.CV_64F).var())


def reduced(pixels: Pixels, longest: int) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """The image with at most `longest` pixels along its longer side."""
    width, height = size_within(_size(pixels), longest)
    return pixels if (width, height) == _size(pixels) else downscale_by_area(pixels, (width, height))


def size_within(size: Size, longest: int) -> Size:
    """Width and height in pixels of an image reduced to at most `longest` pixels along its longer side."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _size(pixels: Pixels) -> Size:
    return pixels.shape[1], pixels.shape[0]


def read_lens(path: Path) -> Lens:
    """Camera and focal length from a photo's EXIF, as far as it has any and they belong to these pixels.

    A photo that was cropped keeps the EXIF of the whole, so that entries for another shape are not used.
    """
    try:
        with Image.open(path) as image:
            exif, size = image.getexif(), image.size
            details = exif.get_ifd(EXIF_IFD)
        if not _belongs_to(details, size):
            return Lens("", None)
        # Digital zoom changes the equivalent for 35 mm film alone.
        zoom = [details.get(FOCAL_LENGTH), details.get(FOCAL_LENGTH_35MM)]
        parts = [exif.get(MAKE), exif.get(MODEL), details.get(LENS), *zoom]
        camera = " ".join(str(part).strip("\0 ") for part in parts if part)
        return Lens(camera, _focal_length(details.get(FOCAL_LENGTH_35MM), size))
    except IMAGE_ERRORS:
        return Lens("", None)


def _belongs_to(details: Mapping[int, Any], size: Size) -> bool:
    """Whether a photo has the shape, upright or on its side, of which its EXIF speaks, if it does."""
    if PIXELS_X not in details or PIXELS_Y not in details:
        return True
    described, actual = float(details[PIXELS_X]) / float(details[PIXELS_Y]), size[0] / size[1]
    return min(abs(described / actual - 1), abs(described * actual - 1)) <= SHAPE_TOLERANCE


def _focal_length(of_35mm: Any, size: Size) -> float | None:
    """Relative to the diagonal; the equivalent for 35 mm film includes digital zoom and the sensor's size."""
    if not of_35mm:
        return None
    relative = float(of_35mm) / DIAGONAL_OF_35MM
    of_side = relative * math.hypot(*size) / max(size)
    return relative if FOCAL_LENGTHS[0] <= of_side <= FOCAL_LENGTHS[1] else None
