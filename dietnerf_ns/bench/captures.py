"""Few-shot copies of captures in nerfstudio's format: reduced photos and lists of the frames used, for every method.

A copy keeps the cameras of all frames, because nerfstudio centres, turns and scales the world by all of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tyro
from nerfstudio.data.dataparsers import nerfstudio_dataparser
from nerfstudio.data.dataparsers.base_dataparser import DataParser
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.bench.experiment import BenchmarkScene, Experiment, Settings, Views, as_flags
from dietnerf_ns.bench.scenes import evenly_spaced, reduced_size
from dietnerf_ns.data.dataparsers import checked
from dietnerf_ns.data.photos import Orientations, orientations_of, read_mask, read_photo
from dietnerf_ns.data.transforms_file import COMPLETIONS, read_transforms
from dietnerf_ns.data.view_selection import select_views
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import atomic_output
from dietnerf_ns.utils.images import downscale_by_area

TRANSFORMS = "transforms.json"
FILE_KEYS = ("file_path", "mask_path", "depth_file_path")
HORIZONTAL, VERTICAL = ("fl_x", "cx"), ("fl_y", "cy")
PER_FRAME = ("w", "h", *HORIZONTAL, *VERTICAL)
"""Intrinsics in pixels. In a copy each frame has its own, because frames of different sizes are scaled differently."""


@dataclass(frozen=True)
class FewShotCapture:
    """A capture and the frames of it that an experiment uses."""

    folder: Path
    meta: dict[str, Any]
    """Content of its transforms.json as the dataparser gets it. What a frame has of its own is not at the top."""
    splits: dict[str, list[Path]]
    """The photos of each split, relative to the folder. Those of `test` are evaluated."""

    def is_used(self, frame: dict[str, Any]) -> bool:
        """Whether the frame's photo is in some split."""
        return any(Path(frame["file_path"]) in photos for photos in self.splits.values())

    @property
    def files(self) -> list[Path]:
        """Files of the used frames and of the points, relative to the folder. The copy has a version of each."""
        return _files_of(self.meta, [frame for frame in self.meta["frames"] if self.is_used(frame)])

    @cached_property
    def orientations(self) -> Orientations:
        """What the sizes of all photos tell about which way up the poses are; `untold` are photos of used frames."""
        frames = self.meta["frames"]
        found = orientations_of((self.folder / frame["file_path"], self.size(frame)) for frame in frames)
        used = {self.folder / frame["file_path"] for frame in frames if self.is_used(frame)}
        return replace(found, untold=[path for path in found.untold if path in used])

    def size(self, frame: dict[str, Any]) -> tuple[int, int]:
        """Width and height of a frame in pixels, as nerfstudio's dataparser finds them."""
        known = self.meta | frame
        return int(known["w"]), int(known["h"])


def choose_frames(folder: Path, scene: BenchmarkScene, views: Views, experiment: Experiment) -> FewShotCapture:
    """The frames of a capture that the experiment uses.

    `views` chooses from the dataparser's training split. With `evaluate: test` the other splits are the dataparser's.
    With `evaluate: val` both are at most `val_frames` evenly spaced training views that are not trained on.

    Args:
        folder: folder of a capture in nerfstudio's format.
        scene: has the dataparser's settings.
        views: choice of training views.
        experiment: says which frames are evaluated.

    Raises:
        UserError: the capture cannot be read or copied, or does not have such views.
    """
    if views.protocol is not None:
        raise UserError(f"protocol {views.protocol} has views of NeRF-Synthetic scenes; give `count` or `indices`.")
    meta = _read_transforms(folder / TRANSFORMS)
    parser = _dataparser(folder, scene.arguments)
    cameras, available = _split(parser, "train")
    chosen = select_views(
        cameras.camera_to_worlds,
        num_views=views.count,
        strategy=views.strategy,
        seed=views.seed,
        indices=views.indices,
        protocol=None,
    )
    train = [available[index] for index in chosen]
    if experiment.evaluate == "val":
        val = test = _unused_views(available, train, experiment.val_frames)
    else:
        val, test = (_split(parser, name)[1] for name in ("val", "test"))
    _check_evaluation(train, val, test)
    return FewShotCapture(folder, meta, {"train": train, "val": val, "test": test})


def _dataparser(folder: Path, arguments: Settings) -> DataParser:
    given = [name for name in arguments if name.replace("_", "-") == "downscale-factor"]
    if given:
        raise UserError(f"arguments: {given[0]} does not apply to a copy of a capture; give `resolution` instead.")
    # As ns-train does, which takes `--auto-scale-poses False` and not `--no-auto-scale-poses`.
    config = tyro.cli(tyro.conf.FlagConversionOff[NerfstudioDataParserConfig], args=as_flags(arguments))
    return checked(replace(config, data=folder, downscale_factor=1)).setup()


def _split(parser: DataParser, name: str) -> tuple[Any, list[Path]]:
    """Cameras and photos of a split as the dataparser gives them; photos relative to the capture's folder."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the indices of every split
        outputs = parser.get_dataparser_outputs(name)
    return outputs.cameras, [path.relative_to(parser.config.data) for path in outputs.image_filenames]


def _files_of(meta: dict[str, Any], frames: Sequence[dict[str, Any]]) -> list[Path]:
    names = [frame[key] for frame in frames for key in FILE_KEYS if key in frame]
    names += [meta["ply_file_path"]] if "ply_file_path" in meta else []
    return list(dict.fromkeys(map(Path, names)))


def _read_transforms(file: Path) -> dict[str, Any]:
    try:
        meta = read_transforms(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    COMPLETIONS[nerfstudio_dataparser](meta, file)
    outside = [path for path in _files_of(meta, meta["frames"]) if path.is_absolute() or ".." in path.parts]
    if outside:
        raise UserError(f"{outside[0]} is outside of the capture's folder; only what is inside can be copied.")
    return meta


def _unused_views(available: Sequence[Path], train: Sequence[Path], most: int) -> list[Path]:
    unused = [photo for photo in available if photo not in train]
    if not unused:
        raise UserError(f"evaluate val: all {len(train)} training views are trained on; choose fewer.")
    return [unused[index] for index in evenly_spaced(len(unused), most)]


def _check_evaluation(train: Sequence[Path], val: Sequence[Path], test: Sequence[Path]) -> None:
    for name, photos in (("val", val), ("test", test)):
        if not photos:
            raise UserError(f"the {name} split of the capture has no frames.")
    shared = [photo for photo in test if photo in train]
    if shared:
        raise UserError(f"{shared[0]} is a training view and a test frame; give the capture separate splits.")


def write_capture_copy(capture: FewShotCapture, target: Path, width: int | None) -> None:
    """Write the capture with these frames as its splits. The folder appears only when it is complete.

    Photos that are reduced become PNG files. Masks are reduced by taking the nearest pixel. Depth images keep their
    size, because nerfstudio fits them to the photos.

    Args:
        capture: the capture and its chosen frames.
        target: folder of the copy. An existing copy is kept.
        width: width of the photos in pixels; None keeps the files.

    Raises:
        UserError: a photo or mask cannot be read, does not have the size of its camera, or is narrower than `width`.
    """
    if target.exists():
        return
    if width is not None and capture.orientations.warning is not None:  # photos that are not reduced keep their EXIF
        print(capture.orientations.warning)
    names = _names_in_copy(capture, width)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(target, replaces=False) as folder:
        for source in capture.files:
            copy = folder / names.get(source, source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if width is None or source not in names:
                shutil.copyfile(capture.folder / source, copy)
        for frame in capture.meta["frames"]:
            if width is not None and capture.is_used(frame):
                _write_reduced(capture, frame, names, folder, width)
        (folder / TRANSFORMS).write_text(json.dumps(_transforms_of_copy(capture, names, width), indent=1))


def _names_in_copy(capture: FewShotCapture, width: int | None) -> dict[Path, Path]:
    """Names of photos and masks in the copy, by their names in the capture."""
    frames = capture.meta["frames"]
    sources = dict.fromkeys(Path(frame[key]) for key in ("file_path", "mask_path") for frame in frames if key in frame)
    names = {source: source if width is None else source.with_suffix(".png") for source in sources}
    seen: dict[Path, Path] = {}
    for source, name in names.items():
        if name in seen:
            raise UserError(f"{seen[name]} and {source} differ only in their file type and would become one file.")
        seen[name] = source
    return names


def _write_reduced(
    capture: FewShotCapture, frame: dict[str, Any], names: dict[Path, Path], folder: Path, width: int
) -> None:
    """Write a frame's photo and mask at the new size."""
    photo, size = Path(frame["file_path"]), capture.size(frame)
    upright = capture.orientations.upright
    image = read_photo(capture.folder / photo, size, upright=upright)
    _check_size(photo, (image.shape[1], image.shape[0]), size)
    new_size = reduced_size(capture.folder / photo, size, width)
    Image.fromarray(image if new_size == size else downscale_by_area(image, new_size)).save(folder / names[photo])
    if "mask_path" in frame:
        name = Path(frame["mask_path"])
        mask = Image.fromarray(read_mask(capture.folder / name, size, upright=upright))
        _check_size(name, mask.size, size)
        mask.convert("L").resize(new_size, Image.Resampling.NEAREST).save(folder / names[name])


def _check_size(name: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    if size != expected:
        given, wanted = ("x".join(map(str, pair)) for pair in (size, expected))
        raise UserError(f"{name} has {given} pixels, but {TRANSFORMS} says {wanted}.")


def _transforms_of_copy(capture: FewShotCapture, names: dict[Path, Path], width: int | None) -> dict[str, Any]:
    """Content of the copy's transforms.json: all cameras of the capture, and the chosen frames as lists."""
    # Frames whose photos are in the copy come first: nerfstudio opens the photo of the first frame to learn its size.
    frames = sorted(capture.meta["frames"], key=lambda frame: not capture.is_used(frame))
    top = {key: value for key, value in capture.meta.items() if key not in PER_FRAME}
    if "fisheye_crop_radius" in top and width is not None:
        top["fisheye_crop_radius"] *= width / capture.size(frames[0])[0]
    lists = {
        f"{split}_filenames": [names[photo].as_posix() for photo in photos] for split, photos in capture.splits.items()
    }
    return top | lists | {"frames": [_frame_of_copy(capture, frame, names, width) for frame in frames]}


def _frame_of_copy(
    capture: FewShotCapture, frame: dict[str, Any], names: dict[Path, Path], width: int | None
) -> dict[str, Any]:
    """A frame with its new file names and its intrinsics at the new size."""
    size = capture.size(frame)
    new_size = reduced_size(capture.folder / frame["file_path"], size, width)
    found = capture.meta | frame
    scaled = {key: found[key] * new_size[0] / size[0] for key in HORIZONTAL}
    scaled |= {key: found[key] * new_size[1] / size[1] for key in VERTICAL}
    files = {key: names[Path(frame[key])].as_posix() for key in ("file_path", "mask_path") if key in frame}
    return frame | scaled | {"w": new_size[0], "h": new_size[1]} | files
