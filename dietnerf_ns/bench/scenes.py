"""Few-shot copies: a small copy of a NeRF-Synthetic scene with only the frames used, the same for every method."""

from __future__ import annotations

import glob
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.data.dataparsers import blender_dataparser
from PIL import Image
from torch import Tensor

from dietnerf_ns.bench.experiment import BLENDER_PARSER, BenchmarkScene, Experiment, Views, check_known
from dietnerf_ns.data.photos import read_photo
from dietnerf_ns.data.protocols import PROTOCOLS, ViewProtocol, departure_in_training, protocol_test_indices
from dietnerf_ns.data.transforms_file import COMPLETIONS, read_transforms
from dietnerf_ns.data.view_selection import select_views
from dietnerf_ns.methods import TINY_SCENE
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import atomic_output
from dietnerf_ns.utils.images import downscale_by_area

SHIPPED = "tiny"
SPLITS = ("train", "val", "test")
HASHED = {".json", ".txt", ".npy"}
"""File types of cameras and splits. In a scene that is used as it is, the content of such files identifies the data; of
other files only the size does."""
LARGEST_HASHED = 2**24
"""In bytes. Of larger files only the size counts."""
SPARSE_MODEL = {f"{name}.bin" for name in ("cameras", "frames", "images", "points3D", "rigs")}
"""COLMAP's files of cameras and points, hashed at any size: other poses do not change it."""


def find_scene(scene: BenchmarkScene, data: Path | None) -> Path:
    """Find the scene's folder.

    Args:
        scene: the scene.
        data: folder that contains the scenes' folders.

    Raises:
        UserError: the scene does not exist, or a split of a NeRF-Synthetic scene is missing.
    """
    if scene.name == SHIPPED:
        return TINY_SCENE
    if data is None:
        raise UserError(f"Scene {scene.name!r} needs --data, the folder that holds it; only {SHIPPED!r} needs none.")
    if not data.is_dir():
        raise UserError(f"--data {data}: there is no such folder.")
    check_known(f"scene in {data}:", scene.name, [SHIPPED, *(path.name for path in data.iterdir() if path.is_dir())])
    folder = data / scene.name
    files = [transforms_file(folder, split) for split in SPLITS] if scene.parser == BLENDER_PARSER else []
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        hint = "" if scene.dataparser else "; if it is not NeRF-Synthetic, name its `dataparser`"
        raise UserError(f"Scene {folder}: no {', '.join(missing)}{hint}.")
    return folder


def transforms_file(scene: Path, split: str) -> Path:
    """File with the cameras of a split of a NeRF-Synthetic scene."""
    return scene / f"transforms_{split}.json"


@dataclass(frozen=True)
class SceneSplit:
    """One split of a NeRF-Synthetic scene."""

    folder: Path
    camera_angle_x: float
    """Horizontal field of view in radians."""
    frames: list[dict]
    """The frames as the dataparser of a training gets them."""
    frames_as_written: list[dict]
    """The same frames as the file has them. Ids of cells depend on these."""

    @classmethod
    def read(cls, folder: Path, split: str) -> SceneSplit:
        """Read `transforms_{split}.json` as training reads it.

        Raises:
            UserError: the file is missing or lacks something that NeRF-Synthetic scenes have.
        """
        path = transforms_file(folder, split)
        try:
            content = read_transforms(path)
            as_written = json.loads(path.read_bytes())["frames"]
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        COMPLETIONS[blender_dataparser](content, path)
        scene = cls(folder, content["camera_angle_x"], content["frames"], as_written)
        files = [Path(frame["file_path"]) for frame in scene.frames]
        outside = [str(file) for file in files if file.is_absolute() or ".." in file.parts]
        if outside:
            raise UserError(f"{path}: {outside[0]} is outside of the scene's folder, from which nothing can be copied.")
        return scene

    @property
    def camera_to_worlds(self) -> Float[Tensor, "n 3 4"]:
        """Camera-to-world matrices, OpenGL axes."""
        return torch.tensor([frame["transform_matrix"] for frame in self.frames])[:, :3]

    @property
    def images(self) -> list[Path]:
        """Image files, as nerfstudio's dataparser finds them."""
        return [self.folder / f"{frame['file_path']}.png" for frame in self.frames]

    def keep(self, indices: list[int]) -> SceneSplit:
        """The same split with only the frames of these indices, in their order."""
        frames, as_written = ([each[i] for i in indices] for each in (self.frames, self.frames_as_written))
        return SceneSplit(self.folder, self.camera_angle_x, frames, as_written)


def chosen_splits(scene: Path, views: Views, experiment: Experiment) -> dict[str, SceneSplit]:
    """The frames of each split that the experiment uses. Those of `test` are evaluated.

    Args:
        scene: folder of a NeRF-Synthetic scene.
        views: choice of training views.
        experiment: says which frames are evaluated.

    Raises:
        UserError: the scene does not have these views, or no test frame is evaluated.
    """
    train, val, test = (SceneSplit.read(scene, split) for split in SPLITS)
    chosen = select_views(
        train.camera_to_worlds,
        num_views=views.count,
        strategy=views.strategy,
        seed=views.seed,
        indices=views.indices,
        protocol=views.protocol,
    )
    if views.protocol is not None and (departure := departure_in_training(train.images, views.protocol)):
        raise UserError(
            f"{departure} Sort the frames of {transforms_file(scene, 'train').name} by number, or list `indices`."
        )
    train = train.keep(chosen)
    val = val.keep(evenly_spaced(len(val.frames), experiment.val_frames))
    if experiment.evaluate == "val":
        return {"train": train, "val": val, "test": val}
    own_stride = ViewProtocol((), test_stride=experiment.test_stride)
    protocol = own_stride if views.protocol is None else PROTOCOLS[views.protocol]
    evaluated = protocol_test_indices(test.images, protocol)
    if not evaluated:
        raise UserError(
            f"test_stride {protocol.test_stride}: {transforms_file(scene, 'test')} has no frame with such a number, 0 "
            f"or a multiple of {protocol.test_stride}; choose a smaller one."
        )
    return {"train": train, "val": val, "test": test.keep(evaluated)}


def evenly_spaced(available: int, wanted: int) -> list[int]:
    """At most `wanted` evenly spaced indices from 0 to `available` - 1, including both ends."""
    return np.unique(np.linspace(0, available - 1, min(available, wanted)).round().astype(int)).tolist()


def write_few_shot_copy(splits: dict[str, SceneSplit], target: Path, width: int | None) -> None:
    """Write the frames of each split as a NeRF-Synthetic scene. The folder appears only when it is complete.

    Args:
        splits: the frames by the split's name.
        target: folder of the copy. An existing copy is kept.
        width: width of the images in pixels; None keeps that of the files.

    Raises:
        UserError: an image cannot be read, or is smaller than `width`.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(target, replaces=False) as folder:
        for name, split in splits.items():
            for source in split.images:
                copy = folder / source.relative_to(split.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(read_image(source, width)).save(copy)
            content = {"camera_angle_x": split.camera_angle_x, "frames": split.frames}
            transforms_file(folder, name).write_text(json.dumps(content, indent=1))


def file_hash(path: Path) -> str:
    """SHA-256 of the file's content.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def describe_folder(folder: Path) -> dict[str, int | str]:
    """All files below a folder except hidden ones, each with its size or, for cameras and splits, its hash."""
    names = sorted(glob.glob("**", root_dir=folder, recursive=True))
    paths = {name: folder / name for name in names if (folder / name).is_file()}
    return {name: _size_or_hash(path) for name, path in paths.items()}


def _size_or_hash(path: Path) -> int | str:
    size = path.stat().st_size
    is_hashed = path.name in SPARSE_MODEL or (path.suffix in HASHED and size <= LARGEST_HASHED)
    return file_hash(path) if is_hashed else size


def read_image(path: Path, width: int | None) -> UInt8[np.ndarray, "height width channels"]:
    """Read an image as RGB or RGBA (straight alpha) and reduce it to a width by area averaging.

    Args:
        path: image file.
        width: width in pixels; None keeps that of the file.

    Raises:
        UserError: the image cannot be read, or is narrower than `width`.
    """
    image = read_photo(path)
    size = (image.shape[1], image.shape[0])
    new_size = reduced_size(path, size, width)
    return image if new_size == size else downscale_by_area(image, new_size)


def reduced_size(path: Path, size: tuple[int, int], width: int | None) -> tuple[int, int]:
    """Width and height of an image that is reduced to a width, in pixels.

    Args:
        path: the image file, which the message names.
        size: its width and height in pixels.
        width: width in pixels; None keeps that of the file.

    Raises:
        UserError: the image is narrower than `width`.
    """
    if width is None:
        return size
    if width > size[0]:
        raise UserError(f"resolution {width}: {path} is only {size[0]} pixels wide; images are never enlarged.")
    return width, round(size[1] * width / size[0])
