"""The whole way from photos to a scene folder, which is there completely or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.markup import escape

from dietnerf_ns.data.contents import fingerprint
from dietnerf_ns.data.photos import SUFFIXES, read_mask
from dietnerf_ns.poses import cutout as segmentation
from dietnerf_ns.poses.finding import find_poses
from dietnerf_ns.poses.mapping import FEWEST_PHOTOS
from dietnerf_ns.poses.photos import Photo, is_video, photo_files, read_photos, read_video, scene_stem
from dietnerf_ns.poses.report import advice, doubt, draw_report, left_out, summary, write_report
from dietnerf_ns.poses.scene import JPEG_QUALITY, in_world_frame, write_scene
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import atomic_output, check_writable

LONGEST_SIDE = 1600
"""Of the photos in which features are looked for, in pixels; and of the scene's photos, if more are asked for."""
PICTURE, NUMBERS = "poses.png", "poses.json"
COLMAP_ERRORS_ONLY = 3
"""glog's level of fatal errors: what COLMAP says otherwise is said in one line by this program."""


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
        UserError: the source cannot be read, fewer than three photos can be posed, or the output cannot be written.
    """
    _check_output(output, source)
    if cutout and masks is None:
        segmentation.check_available()
    if masks is not None and not masks.is_dir():
        raise UserError(f"--masks {masks}: there is no such folder.")
    pycolmap.logging.minloglevel = COLMAP_ERRORS_ONLY
    pycolmap.set_random_seed(seed)
    with tempfile.TemporaryDirectory(prefix="dietnerf-poses-") as temporary:
        work = Path(temporary)
        images, mask_files = work / "images", work / "masks"
        images.mkdir()
        mask_files.mkdir()
        photos, foregrounds = _collect(source, images, frames=frames, longest=max(size, LONGEST_SIDE), masks=masks)
        for photo in photos:
            everywhere = np.ones(photo.size[::-1], dtype=bool)
            Image.fromarray(foregrounds.get(photo.name, everywhere)).save(mask_files / f"{photo.name}.png")
        features_in = mask_files if foregrounds and not cutout else None
        matches, attempt = find_poses(
            photos, images, work, masks=features_in, separate_cameras=separate_cameras, seed=seed
        )
        attempt.model.extract_colors_for_all_images(images)
        posed = in_world_frame(attempt.model)
        without = left_out(matches, posed.names)
        if cutout and not foregrounds:
            foregrounds = segmentation.foregrounds(images, posed.names)
        with atomic_output(output) as unfinished:
            unfinished.mkdir()
            written = foregrounds if masks is not None or cutout else {}  # transparent photos have theirs
            write_scene(unfinished, posed, images, longest=size, masks=written, cut_out=cutout)
            draw_report(unfinished / PICTURE, posed, matches)
            write_report(unfinished / NUMBERS, attempt, posed, matches, without)
    CONSOLE.print(escape(summary(attempt, posed, matches)))
    if word := doubt(attempt):
        CONSOLE.print(f"[yellow]{escape(word)}[/yellow]")
    for photo in without:
        CONSOLE.print(f"[yellow]{escape(f'Left out: {photo.name}: {photo.reason}.')}[/yellow]")
    CONSOLE.print(escape(advice(posed)))
    CONSOLE.print(escape(f"The scene was written to {output}; look at {output / PICTURE}."))


def _check_output(output: Path, source: Path) -> None:
    if output.is_file():
        raise UserError(f"--output {output}: is a file; name a new folder.")
    resolved, of_source = output.resolve(), source.resolve()
    if resolved == of_source or resolved in of_source.parents:
        raise UserError(f"--output {output}: holds the photos; name a new folder.")
    if output.is_dir() and any(output.iterdir()) and not (output / NUMBERS).exists():
        raise UserError(f"--output {output}: holds other files; name a new or empty folder.")
    check_writable(output, "--output")


def _collect(
    source: Path, images: Path, *, frames: int, longest: int, masks: Path | None
) -> tuple[list[Photo], Mapping[str, Bool[np.ndarray, "height width"]]]:
    """Copy upright photos to a folder; returns them and the masks of those that have one."""
    unreadable: dict[str, str] = {}
    files = [] if is_video(source) else photo_files(source)
    read = read_video(source, frames, longest) if is_video(source) else read_photos(files, longest, unreadable)
    photos: list[Photo] = []
    names: dict[bytes, str] = {}
    foregrounds: dict[str, Bool[np.ndarray, "height width"]] = {}
    for photo, pixels in read:
        same = names.setdefault(fingerprint(pixels), photo.name)
        if same != photo.name:
            CONSOLE.print(f"[yellow]{escape(f'Left out: {photo.name}: the same photo as {same}.')}[/yellow]")
            continue
        if masks is not None:
            foregrounds[photo.name] = _mask_of(photo, masks)
        elif pixels.shape[-1] == 4:
            foregrounds[photo.name] = pixels[..., 3] >= 128
        Image.fromarray(pixels).save(images / photo.name, quality=JPEG_QUALITY)
        photos.append(photo)
    for reason in unreadable.values():
        CONSOLE.print(f"[yellow]{escape(f'Left out: {reason}')}[/yellow]")
    if len(photos) < FEWEST_PHOTOS:
        raise UserError(f"{source}: {_too_few(len(photos), len(files), unreadable)}")
    return photos, foregrounds


def _mask_of(photo: Photo, masks: Path) -> Bool[np.ndarray, "height width"]:
    """The mask of a photo, as large as the photo.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    stem = Path(photo.name).stem
    found = sorted(path for path in masks.iterdir() if scene_stem(path) == stem and path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"--masks {masks}: there is no mask of {photo.name}; each photo needs one with its name.")
    mask = Image.fromarray(read_mask(found[0])).resize(photo.size, Image.Resampling.NEAREST)
    return np.asarray(mask).astype(bool)


def _too_few(num_photos: int, num_files: int, unreadable: Mapping[str, str]) -> str:
    if num_photos == 1 and num_files - len(unreadable) > 1:
        return "all photos are the same: take them from different places."
    cannot = f", and {len(unreadable)} cannot be read" if unreadable else ""
    return f"there are {num_photos} different photos{cannot}; at least {FEWEST_PHOTOS} are needed to find poses."
