"""The same few photos for every method: a small copy of a NeRF-Synthetic scene that holds just the frames used."""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dietnerf_ns.bench.experiment import Experiment, Scene, Views, check_known
from dietnerf_ns.data.protocols import PROTOCOLS, ViewProtocol, protocol_test_indices
from dietnerf_ns.data.view_selection import select_views
from dietnerf_ns.methods import TINY_SCENE
from dietnerf_ns.utils.errors import UserError, in_one_line
from dietnerf_ns.utils.images import downscale_by_area

SHIPPED = "tiny"
SPLITS = ("train", "val", "test")
HASHED = {".json", ".txt", ".npy"}
"""Files that cameras and splits are in; of a scene that is used as it is they are read, other files only measured."""
LARGEST_HASHED = 2**24
"""Bytes."""


def find_scene(scene: Scene, data: Path | None) -> Path:
    """The scene's folder.

    Raises:
        UserError: there is no such scene, or a split of a NeRF-Synthetic scene is missing.
    """
    if scene.name == SHIPPED:
        return TINY_SCENE
    if data is None:
        raise UserError(f"Scene {scene.name!r} needs --data, the folder that holds it; only {SHIPPED!r} needs none.")
    if not data.is_dir():
        raise UserError(f"--data {data}: there is no such folder.")
    check_known(f"scene in {data}:", scene.name, [SHIPPED, *(path.name for path in data.iterdir() if path.is_dir())])
    folder = data / scene.name
    files = [] if scene.dataparser is not None else [transforms_file(folder, split) for split in SPLITS]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"Scene {folder}: no {', '.join(missing)}; if it is not NeRF-Synthetic, name its `dataparser`.")
    return folder


def transforms_file(scene: Path, split: str) -> Path:
    """Where a NeRF-Synthetic scene keeps the cameras of a split."""
    return scene / f"transforms_{split}.json"


@dataclass(frozen=True)
class SceneSplit:
    """One split of a NeRF-Synthetic scene."""

    folder: Path
    camera_angle_x: float
    """Horizontal field of view in radians."""
    frames: list[dict]

    @classmethod
    def read(cls, folder: Path, split: str) -> SceneSplit:
        """Read `transforms_{split}.json`.

        Raises:
            UserError: it is not there, or not as in NeRF-Synthetic scenes.
        """
        path = transforms_file(folder, split)
        try:
            content = json.loads(path.read_text())
            scene = cls(folder, float(content["camera_angle_x"]), list(content["frames"]))
            _ = scene.camera_to_worlds, scene.images  # so that frames that lack something are refused here
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: is not as in a NeRF-Synthetic scene: {in_one_line(error)}") from error
        return scene

    @property
    def camera_to_worlds(self) -> Float[Tensor, "n 3 4"]:
        """Camera-to-world matrices, OpenGL axes."""
        return torch.tensor([frame["transform_matrix"] for frame in self.frames])[:, :3]

    @property
    def images(self) -> list[Path]:
        """Image files, as nerfstudio's dataparser finds them."""
        return [self.folder / f"{frame['file_path'].removeprefix('./')}.png" for frame in self.frames]

    def keep(self, indices: list[int]) -> SceneSplit:
        """The same split with only these frames, in this order."""
        return SceneSplit(self.folder, self.camera_angle_x, [self.frames[i] for i in indices])


def chosen_splits(scene: Path, views: Views, experiment: Experiment) -> dict[str, SceneSplit]:
    """The frames of each split that the experiment uses; `test` is what is evaluated.

    Raises:
        UserError: the scene lacks the views that were asked for.
    """
    train, val, test = (SceneSplit.read(scene, split) for split in SPLITS)
    train = train.keep(
        select_views(
            train.camera_to_worlds,
            num_views=views.count,
            strategy=views.strategy,
            seed=views.seed,
            indices=views.indices,
            protocol=views.protocol,
        )
    )
    val = val.keep(evenly_spaced(len(val.frames), experiment.val_frames))
    protocol = PROTOCOLS.get(views.protocol, ViewProtocol((), test_stride=experiment.test_stride))
    test = val if experiment.evaluate == "val" else test.keep(protocol_test_indices(test.images, protocol))
    return {"train": train, "val": val, "test": test}


def evenly_spaced(available: int, wanted: int) -> list[int]:
    """At most `wanted` indices below `available`, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, available - 1, min(available, wanted)).round().astype(int)).tolist()


def write_few_shot_copy(splits: dict[str, SceneSplit], target: Path, width: int | None) -> None:
    """Write the frames of each split as a NeRF-Synthetic scene; complete or not at all.

    Args:
        splits: what to keep.
        target: the new scene's folder; left alone if it is there already.
        width: of the images in pixels; that of the files when None.
    """
    if target.exists():
        return
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name, split in splits.items():
        for source in split.images:
            copy = unfinished / source.relative_to(split.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(read_image(source, width)).save(copy)
        content = {"camera_angle_x": split.camera_angle_x, "frames": split.frames}
        transforms_file(unfinished, name).write_text(json.dumps(content, indent=1))
    unfinished.rename(target)


def file_hash(path: Path) -> str:
    """Hash of what is in the file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def describe_folder(folder: Path) -> dict[str, int | str]:
    """Every file below a folder, hidden ones left out: its size, or the hash of a small text or array file."""
    names = sorted(glob.glob("**", root_dir=folder, recursive=True))
    paths = {name: folder / name for name in names if (folder / name).is_file()}
    return {name: _size_or_hash(path) for name, path in paths.items()}


def _size_or_hash(path: Path) -> int | str:
    size = path.stat().st_size
    return file_hash(path) if path.suffix in HASHED and size <= LARGEST_HASHED else size


def read_image(path: Path, width: int | None) -> UInt8[np.ndarray, "height width channels"]:
    """An image, RGB or RGBA with straight alpha, averaged over areas to a width.

    Raises:
        UserError: it cannot be read, or is smaller than what was asked for.
    """
    try:
        image = np.asarray(Image.open(path))
    except OSError as error:
        raise UserError(f"Image {path} cannot be read: {error}") from error
    if width is None or width == image.shape[1]:
        return image
    if width > image.shape[1]:
        raise UserError(f"resolution {width}: {path} is only {image.shape[1]} pixels wide; enlarging is not measured.")
    return downscale_by_area(image, (width, round(image.shape[0] * width / image.shape[1])))
