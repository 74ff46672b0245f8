"""The masks of photos in a folder of their own, found by name and turned like the photos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from dietnerf_ns.data.photos import (
    SUFFIXES,
    Orientations,
    Size,
    heif_and_large_photos,
    orientations_of_masks,
    photo_size,
    read_mask,
)
from dietnerf_ns.poses.photos import SHAPE_TOLERANCE, Photo
from dietnerf_ns.utils.errors import UserError, first_names
from dietnerf_ns.utils.files import composed


@dataclass(frozen=True)
class Masks:
    """The masks in a folder, white where a pixel counts, one for each photo."""

    folder: Path
    orientations: Orientations
    """What the masks' sizes tell about whether they were drawn on the upright photos or on the stored pixels."""

    @property
    def warning(self) -> str | None:
        """A sentence for the user if nothing tells how some masks are to be turned."""
        undecided = self.orientations.undecided
        if not undecided:
            return None
        return (
            f"Orientation: {first_names(undecided)}: EXIF says how to turn these photos, and the sizes of their masks "
            "do not tell whether they were drawn on the turned ones. They are taken for masks of the turned photos, as "
            "programs show them. If that is wrong, turn the photos and remove the EXIF."
        )

    def of(self, photo: Photo) -> Bool[np.ndarray, "height width"]:
        """The mask of a photo, as large as the photo.

        Raises:
            UserError: there is none, it cannot be read, or it has another shape.
        """
        file = photo.file or Path(photo.name)
        path = _mask_in(self.folder, file)
        if path is None:
            raise UserError(
                f"--masks {self.folder}: there is no mask of {file.name}; each photo needs one with its name."
            )
        stored = self.orientations.told == {False}
        for turned_like in (photo.file, None) if stored else (None, photo.file):
            mask = Image.fromarray(read_mask(path, turned_like=turned_like))
            if _have_one_shape(mask.size, photo.size):
                return np.asarray(mask.resize(photo.size, Image.Resampling.NEAREST)).astype(bool)
        given, expected = ("x".join(map(str, size)) for size in (photo_size(path), photo.size))
        raise UserError(
            f"--masks {self.folder}: {path.name} is {given} (width x height), which is not the shape of {file.name} "
            f"({expected}): make a mask of the whole upright photo."
        )


def masks_in(folder: Path, photos: Iterable[Path]) -> Masks:
    """The masks of photos.

    Args:
        folder: of the masks; it exists.
        photos: files; frames of a video have none.
    """
    pairs = [(photo, mask) for photo in photos if (mask := _mask_in(folder, photo)) is not None]
    with heif_and_large_photos():
        return Masks(folder, orientations_of_masks(pairs))


def _mask_in(folder: Path, photo: Path) -> Path | None:
    stem = composed(photo.stem)
    found = [path for path in folder.iterdir() if composed(path.stem) == stem and path.suffix.lower() in SUFFIXES]
    return min(found, key=lambda path: (composed(path.name) != composed(photo.name), path.name), default=None)


def _have_one_shape(first: Size, second: Size) -> bool:
    return abs(first[0] * second[1] / (first[1] * second[0]) - 1) <= SHAPE_TOLERANCE
