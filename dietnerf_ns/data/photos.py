"""The one reader of photos and masks: every file type and pixel format becomes 8-bit RGB or RGBA, or an error."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from dietnerf_ns.utils.errors import UserError, first_names

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Suffixes of image files, in lower case."""
HEIF_SUFFIXES = (".heic", ".heif")
HEIF = "HEIF"
"""Pillow's name of the format, where pillow-heif reads it."""
MOST_PIXELS = 500_000_000
"""Largest photo of a phone. Pillow's limit is for images from strangers; phones have 200 megapixels."""
ORIENTATION = 0x0112
"""EXIF tag of the orientation."""
IN_PNG = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""Where Pillow finds an orientation in a PNG without decoding it."""
TURNED = (5, 6, 7, 8)
"""Orientations that exchange width and height."""
TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""By orientation: from the upright to the stored photo."""
MOST_LABELS = 32
"""Largest label of a mask of labels; a mask of brightness has brighter pixels."""
NEARLY_BLACK = 26
"""Largest value, of 255, of what compression makes of black."""
SOFT_SHARE = 0.1
"""Of a mask's pixels, that may be at soft edges between black and white."""
RANGES = (1.0, 255.0, 65535.0)
"""Largest values of float and 32-bit images that say which range their values have."""
IMAGE_ERRORS = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, SyntaxError, MemoryError),
    struct.error,
)
"""What Pillow and pillow-heif raise for images and EXIF that are broken."""
LFS_POINTER = b"version https://git-lfs"
Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Orientations:
    """What sizes tell about whether the poses or masks of photos belong to the upright ones."""

    told: frozenset[bool]
    """For the photos whose cameras or masks have one of the two sizes only: whether it is the upright photo's."""
    untold: list[Path]
    """Photos that EXIF turns or mirrors, and that have the same size either way."""

    @property
    def undecided(self) -> list[Path]:
        """The photos whose size does not tell, if no others tell, or if they contradict each other."""
        return [] if len(self.told) == 1 else self.untold

    @property
    def upright(self) -> bool:
        """Whether the photos whose size does not tell are turned upright as well."""
        return self.told == {True}

    @property
    def warning(self) -> str | None:
        """A sentence for the user if nothing tells what becomes of some photos."""
        if not self.undecided:
            return None
        return (
            f"Orientation: {first_names(self.undecided)}: EXIF says how to turn these photos, and the photos' sizes do "
            "not tell whether the poses belong to the turned ones. They are used as they are stored. If that is wrong, "
            "turn them and remove the EXIF."
        )


def read_photo(
    path: Path, size: Size | None = None, *, upright: bool = False, at_least: int | None = None
) -> UInt8[np.ndarray, "height width channels"]:
    """Read a photo as RGB or, if it has transparency of any kind, as RGBA with straight alpha.

    Palettes and other colour spaces are converted, gray is repeated. 16-bit values are divided by 257; 32-bit integers
    and floats by the smallest of 1, 255 and 65535 that none of them exceeds.

    Args:
        path: image file.
        size: of the photo's camera, whose pose may belong to the stored pixels or to the upright photo. A photo with an
            EXIF orientation is turned if only the turned one has this size. Without a size it is turned.
        upright: whether a photo is turned that has this size both turned and as it is stored.
        at_least: pixels along the longer side that are enough. A JPEG with twice as many or more is decoded at a half,
            a quarter or an eighth of its size, which saves time and memory.

    Returns:
        [height, width, 3 or 4], 0 to 255.

    Raises:
        UserError: the file cannot be read, or its values are in no known range.
    """
    with _opened(path) as image:
        if at_least is not None:
            factor = at_least / max(image.size)
            image.draft(None, (math.ceil(image.width * factor), math.ceil(image.height * factor)))
        return _as_rgb(path, _oriented(image, size, upright=upright))


def read_mask(
    path: Path, size: Size | None = None, *, upright: bool = False, turned_like: Path | None = None
) -> Bool[np.ndarray, "height width"]:
    """Read a mask: a pixel counts where it has at least half of the largest value in the file.

    Where the largest value of a single channel is at most 32, the values are labels, and all but 0 count; so are the
    colours of a palette that are not all gray, and all but black count. Of several colour channels the largest counts;
    alpha is multiplied in. Of a cut-out photo, transparent around the object, alpha alone counts.

    Args:
        path: image file.
        size: of the photo's camera; see `read_photo`.
        upright: see `read_photo`.
        turned_like: photo whose EXIF orientation counts in place of the mask's own.

    Returns:
        True where a pixel counts.

    Raises:
        UserError: a file cannot be read.
    """
    with _opened(path) as image:
        if turned_like is not None:
            with _opened(turned_like) as photo:
                image.getexif()[ORIENTATION] = _orientation(photo)
        turned = _oriented(image, size, upright=upright)
        one_channel = _is_deep(turned) or (turned.mode == "L" and not _has_transparency(turned))
        values = np.asarray(turned) if one_channel else _as_rgb(path, turned).astype(np.float32)
    has_colours = turned.mode == "P" and bool((values[..., :3].max(axis=-1) > values[..., :3].min(axis=-1)).any())
    if values.ndim == 3:
        values = values[..., 3] if _is_cut_out(values) else _brightest(values)
    highest = values.max(initial=0)
    are_labels = has_colours or (one_channel and turned.mode != "F" and highest <= MOST_LABELS)
    return (values > 0) & (are_labels | (values >= highest / 2))


def _brightest(values: np.ndarray) -> np.ndarray:
    alpha = values[..., 3] / 255 if values.shape[-1] == 4 else 1
    return values[..., :3].max(axis=-1) * alpha


def _is_cut_out(values: np.ndarray) -> bool:
    """Whether the opaque pixels have the colours of a photo, not of a mask."""
    if values.shape[-1] == 3 or values[..., 3].min() == values[..., 3].max():
        return False
    opaque = values[..., :3][values[..., 3] >= 128]
    between = (opaque.max(axis=-1) > NEARLY_BLACK) & (opaque.min(axis=-1) < 255 - NEARLY_BLACK)
    return len(opaque) > 0 and float(between.mean()) > SOFT_SHARE


def photo_size(path: Path) -> Size:
    """Width and height of the upright photo in pixels, from the file's header.

    Raises:
        UserError: the file cannot be read.
    """
    with _opened(path) as image:
        return (image.height, image.width) if _orientation(image) in TURNED else image.size


def stored_size(path: Path) -> Size:
    """Width and height of the photo without regard to its EXIF orientation, in pixels, from the file's header.

    Raises:
        UserError: the file cannot be read.
    """
    with _opened(path) as image:
        return image.size


def orientations_of(photos: Iterable[tuple[Path, Size]]) -> Orientations:
    """Whether poses belong to the upright photos or to the stored pixels, by those photos whose sizes tell.

    A square photo, and one that is upside down or mirrored, has the same size either way. Photos that cannot be read
    do not count.

    Args:
        photos: of one dataset, each with its camera's size.
    """
    told, untold = set(), []
    for path, size in photos:
        with contextlib.suppress(UserError), _opened(path) as image:
            orientation = _quick_orientation(image)
            if orientation in TURNED and image.width != image.height:
                told.add(_is_to_be_turned(image, size))
            elif orientation in TURNED_BACK:
                untold.append(path)
    return Orientations(frozenset(told), untold)


def orientations_of_masks(pairs: Iterable[tuple[Path, Path]]) -> Orientations:
    """Whether masks were drawn on the upright photos or on the stored pixels, by those whose sizes tell.

    Masks that say by EXIF how they are turned do not count, nor do files that cannot be read.

    Args:
        pairs: photo and mask.
    """
    told, untold = set(), []
    for path, mask_path in pairs:
        with contextlib.suppress(UserError), _opened(path) as photo, _opened(mask_path) as mask:
            orientation = _quick_orientation(photo)
            if orientation not in TURNED_BACK or _quick_orientation(mask) in TURNED_BACK:
                continue
            if orientation in TURNED and photo.width != photo.height:
                told.add((mask.width > mask.height) != (photo.width > photo.height))
            else:
                untold.append(path)
    return Orientations(frozenset(told), untold)


def _quick_orientation(image: Image.Image) -> int:
    """The orientation, without looking for it in a PNG that has none, which Pillow would decode."""
    if image.format == "PNG" and not any(key in image.info for key in IN_PNG):
        return 1
    return _orientation(image)


def has_transparency(path: Path) -> bool:
    """Whether `read_photo` returns RGBA, from the file's header.

    Raises:
        UserError: the file cannot be read.
    """
    with _opened(path) as image:
        return _has_transparency(image)


@contextlib.contextmanager
def heif_and_large_photos() -> Iterator[None]:
    """Inside, photos of phones can be read: HEIC, if its package is installed, and hundreds of megapixels."""
    read_before = HEIF in Image.OPEN
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]

        register_heif_opener()
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
        if HEIF in Image.OPEN and not read_before:
            del Image.OPEN[HEIF]
            Image.ID.remove(HEIF)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield _stored_tiff(image) if image.format == "TIFF" else image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file.") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: {_why_no_image(path)}") from error
    except IMAGE_ERRORS as error:
        raise UserError(f"{path}: this image cannot be read: {' '.join(str(error).split())}.") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: this image has too many pixels; make it smaller.") from error


def _stored_tiff(image: Image.Image) -> Image.Image:
    """A TIFF's stored pixels with their EXIF orientation, as other formats are read; Pillow turns TIFFs upright."""
    orientation = _orientation(image)
    if orientation not in TURNED_BACK:
        return image
    image.load()
    if _orientation(image) == orientation:
        return image
    stored = image.transpose(TURNED_BACK[orientation])
    stored.getexif()[ORIENTATION] = orientation
    return stored


def _why_no_image(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(32)
    if not start:
        return "this image file is empty."
    if start.startswith(LFS_POINTER):
        return "this is a Git LFS pointer, not an image: fetch the image with `git lfs pull`."
    if start[4:8] == b"ftyp" and HEIF in Image.OPEN:  # pillow-heif could not identify it either
        return "this HEIC or AVIF photo is damaged, or of a kind that pillow-heif does not read: convert it to JPEG."
    if start[4:8] == b"ftyp":
        return (
            "HEIC and AVIF photos cannot be read: convert them to JPEG or PNG. dietnerf-poses and dietnerf-similarity "
            'read HEIC after `pip install "dietnerf-ns[heic]"`.'
        )
    return "this is no image in a known format: convert it to JPEG or PNG."


def _oriented(image: Image.Image, size: Size | None, *, upright: bool = False) -> Image.Image:
    return ImageOps.exif_transpose(image) if _is_to_be_turned(image, size, upright=upright) else image


def _is_to_be_turned(image: Image.Image, size: Size | None, *, upright: bool = False) -> bool:
    if size is None:
        return _orientation(image) != 1
    if _orientation(image) not in TURNED or image.width == image.height:
        return upright
    return image.size != size and image.size[::-1] == size


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ORIENTATION, 1)


def _is_deep(image: Image.Image) -> bool:
    """Whether the values are one channel of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def _has_transparency(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")


def _as_rgb(path: Path, image: Image.Image) -> UInt8[np.ndarray, "height width channels"]:
    if _is_deep(image):
        gray = _to_8_bit(path, np.asarray(image), is_16_bit=image.format == "PNG" or image.mode.startswith("I;16"))
        rgb = np.repeat(gray[..., None], 3, axis=-1)
        if not _has_transparency(image):
            return rgb
        is_seen = np.asarray(image) != image.info["transparency"]  # a PNG's transparent shade of gray
        return np.dstack([rgb, is_seen * np.uint8(255)])
    return np.array(image.convert("RGBA" if _has_transparency(image) else "RGB"))


def _to_8_bit(path: Path, values: np.ndarray, *, is_16_bit: bool) -> UInt8[np.ndarray, "height width"]:
    lowest, highest = float(values.min(initial=0)), float(values.max(initial=0))
    limits = RANGES[-1:] if is_16_bit else RANGES
    limit = next((limit for limit in limits if highest <= limit), None)
    if limit is None or not lowest >= 0:
        raise UserError(
            f"{path}: its values range from {lowest:g} to {highest:g}; known are 0 to 1, 255 and 65535. "
            "Convert it to 8 bits."
        )
    return np.rint(values.astype(np.float64) * (255 / limit)).astype(np.uint8)
