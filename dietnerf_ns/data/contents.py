"""What photos of a dataset have in common that they should not: nothing to see, or the same pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from dietnerf_ns.data.foreground import TOLERANCE
from dietnerf_ns.utils.errors import MOST_NAMES, UserError, first_names

DARK = 64
"""Brightest value of photos that are all dark. 14 bits in a file of 16 bits are at most 64."""
Photo = UInt8[np.ndarray, "height width channels"]
"""RGB, or RGBA with straight alpha, in 0..255."""


def report_training_photos(dataset: InputDataset) -> None:
    """Say which training photos show nothing, and which are there more than once.

    Raises:
        UserError: all photos show nothing.
    """
    blank, brightest = [], 0
    for photo in map(dataset.get_numpy_image, range(len(dataset))):
        blank.append(is_blank(photo))
        brightest = max(brightest, int(photo[..., :3].max()))
    paths = dataset.image_filenames
    if all(blank):
        raise UserError(
            f"{paths[0]}: this photo, as all {len(paths)} training photos, is transparent everywhere or has one colour "
            "everywhere: there is nothing to train on."
        )
    if any(blank):
        _say(
            f"Blank training photos: {first_names([paths[i] for i in np.flatnonzero(blank)])}. They are transparent or "
            "have one colour everywhere, and are trained on as views in which there is nothing. If that is wrong, "
            "leave them out."
        )
    if brightest <= DARK:
        _say(
            f"All training photos are dark: no value is above {brightest} of 255. If values of 10, 12 or 14 bits are "
            "in files of 16 bits, multiply them by 64, 16 or 4."
        )
    same: dict[bytes, list[Path]] = {}
    for index in np.flatnonzero(np.logical_not(blank)).tolist():
        same.setdefault(fingerprint(dataset.get_numpy_image(index)), []).append(paths[index])
    repeated = [" = ".join(path.name for path in group) for group in same.values() if len(group) > 1]
    if len(same) == 1 and repeated:
        _say("All training photos have the same pixels. If the cameras are at different places, photos are mixed up.")
    elif repeated:
        _say(
            f"The same photo is trained on more than once: {'; '.join(repeated[:MOST_NAMES])}"
            f"{' and others' if len(repeated) > MOST_NAMES else ''}. It counts more than the others; leave the copies "
            "out."
        )


def any_transparent(dataset: InputDataset) -> bool:
    """Whether a pixel of some photo is transparent, at least in part."""
    photos = map(dataset.get_numpy_image, range(len(dataset)))
    return any(photo.shape[-1] == 4 and bool((photo[..., 3] < 255).any()) for photo in photos)


def report_photos_in_both(trained_on: InputDataset, evaluated: InputDataset) -> None:
    """Say which photos are both trained on and evaluated: the same file, or the same pixels."""
    known = {fingerprint(photo) for photo in map(trained_on.get_numpy_image, range(len(trained_on)))}
    both = []
    for index, path in enumerate(evaluated.image_filenames):
        photo = evaluated.get_numpy_image(index)
        if not is_blank(photo) and fingerprint(photo) in known:
            both.append(path)
    if both:
        _say(
            f"Evaluation: {len(both)} of {len(evaluated)} photos are trained on as well: {first_names(both)}. Their "
            "metrics say nothing about new views."
        )


def is_blank(photo: Photo) -> bool:
    """Whether a photo is transparent everywhere or has one colour everywhere, within 0.05 of 1."""
    tolerance = TOLERANCE * 255
    if photo.shape[-1] == 4 and photo[..., 3].max() < tolerance:
        return True
    return bool((np.ptp(photo.reshape(-1, photo.shape[-1]), axis=0) <= tolerance).all())


def fingerprint(photo: Photo) -> bytes:
    """A digest that two photos share only if they have the same size and pixels; opaque alpha does not count."""
    if photo.shape[-1] == 4 and photo[..., 3].min() == 255:
        photo = photo[..., :3]
    return hashlib.blake2b(repr(photo.shape).encode() + np.ascontiguousarray(photo).tobytes()).digest()


def _say(line: str) -> None:
    CONSOLE.print(f"[yellow]{escape(line)}[/yellow]")
