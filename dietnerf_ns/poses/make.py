"""The whole way from photos to a scene folder, which is there completely or not at all."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.markup import escape

from dietnerf_ns.data.contents import fingerprint
from dietnerf_ns.data.photos import has_transparency, heif_and_large_photos
from dietnerf_ns.poses.cutout import Network
from dietnerf_ns.poses.finding import find_poses
from dietnerf_ns.poses.mapping import FEWEST_PHOTOS, Attempt
from dietnerf_ns.poses.masks import masks_in
from dietnerf_ns.poses.matching import Matches
from dietnerf_ns.poses.photos import (
    Photo,
    Pixels,
    is_video,
    other_files,
    photo_files,
    read_photos,
    read_video,
)
from dietnerf_ns.poses.report import FILES, LeftOut, advice, doubt, draw_report, left_out, summary, write_report
from dietnerf_ns.poses.scene import JPEG_QUALITY, PosedPhotos, in_world_frame, write_scene
from dietnerf_ns.utils.errors import UserError, first_names, writing
from dietnerf_ns.utils.files import OF_FILE_MANAGERS, atomic_output, check_writable, hashes_of_files

LONGEST_SIDE = 1600
"""Of the photos in which features are looked for, in pixels; and of the scene's photos, if more are asked for."""
PICTURE, NUMBERS = "poses.png", "poses.json"
SCENE_NAME = re.compile(r"(images|masks)(_\d+)?|transforms\.json|sparse_pc\.ply|poses\.(png|json)")
"""What is at the top of a scene."""
BYTES_PER_PHOTO = 5 * 2**20
"""Of features, and matches with twenty other photos, in the temporary folder, at most. COLMAP aborts the program if it
cannot write them."""
COLMAP_ERRORS_ONLY = 3
"""glog's level of fatal errors: what COLMAP says otherwise is said in one line by this program."""

Foregrounds = Mapping[str, Bool[np.ndarray, "height width"]]
"""By the photos' names in the scene: True where a pixel counts, as large as the photo."""


@dataclass(frozen=True)
class Found:
    """What was found out about the photos."""

    matches: Matches
    attempt: Attempt
    posed: PosedPhotos
    without: Sequence[LeftOut]


def make_scene(
    source: Path,
    output: Path,
    *,
    size: int,
    frames: int,
    masks: Path | None,
    cutout: bool,
    separate_cameras: bool,
    seed: int,
) -> None:
    """Find the poses of photos, and write a scene for nerfstudio-data.

    Args:
        source: folder of photos, or a video.
        output: folder of the scene; new, empty, or a scene that this function wrote.
        size: pixels along the longer side of the photos in the scene.
        frames: number of frames that are taken from a video.
        masks: folder of masks with the photos' names, white where a pixel counts.
        cutout: whether photos become transparent around the object: where its mask is black, or what rembg finds.
        separate_cameras: each photo has its own focal length.
        seed: of all random choices.

    Raises:
        UserError: the source or a mask cannot be read, nothing can cut out, fewer than three photos can be posed, or
            the output or temporary files cannot be written.
    """
    _check_output(output, source, masks)
    if masks is not None:
        _check_masks(masks, source)
    network = Network()
    if cutout and masks is None and _is_any_without_alpha(source):
        network.load()
    pycolmap.logging.minloglevel = COLMAP_ERRORS_ONLY
    pycolmap.set_random_seed(seed)
    with _temporary_folder() as work:
        images = work / "images"
        images.mkdir()
        photos, foregrounds = _collect(source, images, frames=frames, longest=max(size, LONGEST_SIDE), masks=masks)
        _check_space(work, len(photos))
        if cutout and any(photo.name not in foregrounds for photo in photos):
            network.load()  # before the long work
        features_in = _write_masks(photos, foregrounds, work / "masks") if foregrounds and not cutout else None
        found = _pose(photos, images, work, masks=features_in, separate_cameras=separate_cameras, seed=seed)
        written = foregrounds if masks is not None else {}  # transparent photos have theirs
        if cutout and (missing := [name for name in found.posed.names if name not in foregrounds]):
            written = {**written, **_cut_out(network, images, missing)}
        _write(output, found, images, longest=size, masks=written, cut_out=cutout)
    _report(found, output)


def _cut_out(network: Network, images: Path, names: Sequence[str]) -> Foregrounds:
    foregrounds = network.foregrounds(images, names)
    empty = [name for name, foreground in foregrounds.items() if not foreground.any()]
    if empty:
        names = escape(", ".join(empty))
        CONSOLE.print(
            f"[yellow]--cutout: no object was found in {names}: transparent everywhere, these photos show nothing. "
            "Leave them out, or give --masks.[/yellow]"
        )
    return foregrounds


def _check_output(output: Path, source: Path, masks: Path | None) -> None:
    if output.is_file():
        raise UserError(f"--output {output}: is a file; name a new folder.")
    for kind, path in (("photos", source), ("masks", masks)):
        if path is not None and path.resolve().is_relative_to(output.resolve()):
            raise UserError(f"--output {output}: holds the {kind}; name a new folder.")
    names = sorted(path.name for path in output.glob("*") if path.name not in OF_FILE_MANAGERS)
    others = [name for name in names if NUMBERS not in names or not SCENE_NAME.fullmatch(name)]
    if others:
        raise UserError(f"--output {output}: holds other files, such as {others[0]}; name a new or empty folder.")
    changed = _changed_since(output) if names else None
    if changed is not None:
        raise UserError(
            f"--output {output}: {changed} was added or changed after this scene was written, and would be lost; name "
            "a new folder, or move this one."
        )
    check_writable(output, "--output")


def _changed_since(scene: Path) -> str | None:
    """A file in an older scene that is not as this program wrote it; None if all are, or if the scene does not say."""
    try:
        written = json.loads((scene / NUMBERS).read_text()).get(FILES)
    except (ValueError, AttributeError):
        return NUMBERS
    if written is None:
        return None
    files = hashes_of_files(scene)
    return next((name for name in sorted(files) if name != NUMBERS and files[name] != written.get(name)), None)


def _check_masks(masks: Path, source: Path) -> None:
    if not masks.is_dir():
        raise UserError(f"--masks {masks}: there is no such folder.")
    if masks.resolve() == source.resolve():
        raise UserError(f"--masks {masks}: holds the photos themselves; name the masks' folder.")


def _is_any_without_alpha(source: Path) -> bool:
    """Whether it is clear before the photos are read that some of them are not transparent anywhere."""
    if is_video(source):
        return True
    with heif_and_large_photos():
        return not all(_may_be_transparent(path) for path in photo_files(source))


def _may_be_transparent(photo: Path) -> bool:
    try:
        return has_transparency(photo)
    except UserError:  # it is left out when it is read
        return True


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    with writing("Temporary files"):
        place = tempfile.gettempdir()
    with (
        writing(f"Temporary files in {place} (the variable TMPDIR names another folder)"),
        tempfile.TemporaryDirectory(prefix="dietnerf-poses-", dir=place) as folder,
        _reading_elsewhere(Path(folder)),
    ):
        yield Path(folder)


@contextlib.contextmanager
def _reading_elsewhere(work: Path) -> Iterator[None]:
    """Turn an error with a file that is not in the folder into a `UserError` that names the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename).is_relative_to(work):
            raise
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}.") from error


def _check_space(work: Path, num_photos: int) -> None:
    free, needed = shutil.disk_usage(work).free, num_photos * BYTES_PER_PHOTO
    if free < needed:
        raise UserError(
            f"Temporary files in {work.parent}: {free / 1e6:.0f} MB are free, and {needed / 1e6:.0f} MB may be needed: "
            "make space, or name another folder with the variable TMPDIR."
        )


def _collect(
    source: Path, images: Path, *, frames: int, longest: int, masks: Path | None
) -> tuple[list[Photo], Foregrounds]:
    """Copy upright photos to a folder; returns them and the foregrounds that masks or transparency tell."""
    unreadable: dict[str, str] = {}
    files = [] if is_video(source) else photo_files(source)
    read = read_video(source, frames, longest) if is_video(source) else read_photos(files, longest, unreadable)
    drawn = None if masks is None else masks_in(masks, files)
    if drawn is not None and drawn.warning is not None:
        CONSOLE.print(f"[yellow]{escape(drawn.warning)}[/yellow]")
    photos: list[Photo] = []
    names: dict[bytes, str] = {}
    foregrounds: dict[str, Bool[np.ndarray, "height width"]] = {}
    for photo, pixels in read:
        same = names.setdefault(fingerprint(pixels), photo.name)
        if same != photo.name:
            CONSOLE.print(f"[yellow]{escape(f'Left out: {photo.name}: the same photo as {same}.')}[/yellow]")
            continue
        visible = _visible(pixels)
        if drawn is not None:
            mask = drawn.of(photo)
            if not mask.any():
                name = (photo.file or photo).name
                raise UserError(
                    f"--masks {masks}: the mask of {name} is black everywhere. White marks what counts; leave the "
                    "photo out, or correct the mask."
                )
            foregrounds[photo.name] = mask if visible is None else mask & visible
        elif visible is not None:
            foregrounds[photo.name] = visible
        Image.fromarray(pixels).save(images / photo.name, quality=JPEG_QUALITY)
        photos.append(photo)
    for reason in unreadable.values():
        CONSOLE.print(f"[yellow]{escape(f'Left out: {reason}')}[/yellow]")
    if files:
        _say_what_is_not_read(other_files(source))
    if len(photos) < FEWEST_PHOTOS:
        raise UserError(f"{source}: {_too_few(len(photos), len(files), unreadable)}")
    return photos, foregrounds


def _say_what_is_not_read(others: Sequence[Path]) -> None:
    if others:
        line = f"Not read, because the suffix is not that of a photo: {first_names(others)}."
        CONSOLE.print(f"[yellow]{escape(line)}[/yellow]")


def _too_few(num_photos: int, num_files: int, unreadable: Mapping[str, str]) -> str:
    if num_photos == 1 and num_files - len(unreadable) > 1:
        return "all photos are the same: take them from different places."
    cannot = f", and {len(unreadable)} cannot be read" if unreadable else ""
    return f"there are {num_photos} different photos{cannot}; at least {FEWEST_PHOTOS} are needed to find poses."


def _visible(pixels: Pixels) -> Bool[np.ndarray, "height width"] | None:
    """Where a photo is not transparent, or None if that is everywhere."""
    if pixels.shape[-1] == 3 or (pixels[..., 3] >= 128).all():
        return None
    return pixels[..., 3] >= 128


def _write_masks(photos: Sequence[Photo], foregrounds: Foregrounds, folder: Path) -> Path:
    """Write the masks for COLMAP, white for photos that have none; returns the folder."""
    folder.mkdir()
    for photo in photos:
        everywhere = np.ones(photo.size[::-1], dtype=bool)
        Image.fromarray(foregrounds.get(photo.name, everywhere)).save(folder / f"{photo.name}.png")
    return folder


def _pose(
    photos: Sequence[Photo], images: Path, work: Path, *, masks: Path | None, separate_cameras: bool, seed: int
) -> Found:
    matches, attempt = find_poses(photos, images, work, masks=masks, separate_cameras=separate_cameras, seed=seed)
    attempt.model.extract_colors_for_all_images(images)
    posed = in_world_frame(attempt.model)
    return Found(matches, attempt, posed, left_out(matches, posed.names))


def _write(output: Path, found: Found, images: Path, *, longest: int, masks: Foregrounds, cut_out: bool) -> None:
    with writing(f"--output {output}"), atomic_output(output) as unfinished:
        unfinished.mkdir()
        write_scene(unfinished, found.posed, images, longest=longest, masks=masks, cut_out=cut_out)
        draw_report(unfinished / PICTURE, found.posed, found.matches)
        files = hashes_of_files(unfinished)
        write_report(unfinished / NUMBERS, found.attempt, found.posed, found.matches, found.without, files)


def _report(found: Found, output: Path) -> None:
    CONSOLE.print(escape(summary(found.attempt, found.posed, found.matches)))
    if word := doubt(found.attempt):
        CONSOLE.print(f"[yellow]{escape(word)}[/yellow]")
    for photo in found.without:
        CONSOLE.print(f"[yellow]{escape(f'Left out: {photo.name}: {photo.reason}.')}[/yellow]")
    CONSOLE.print(escape(advice(found.posed)))
    CONSOLE.print(escape(f"The scene was written to {output}; look at {output / PICTURE}."))
