"""Captures as users bring them, made from the shipped scene: one door for photos, masks and transforms files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.data.datamanager import FewShotDataManager, FewShotDataManagerConfig
from dietnerf_ns.methods import TINY_SCENE

Meta = dict[str, Any]
Save = Callable[[np.ndarray, Path, int], None]
"""Writes the photo with a number, RGBA, to a path."""
COUNT = 5
SIZE = 100


@cache
def base_photos() -> list[np.ndarray]:
    """The first training photos of the shipped scene, RGBA."""
    frames = json.loads((TINY_SCENE / "transforms_train.json").read_text())["frames"][:COUNT]
    return [np.array(Image.open(TINY_SCENE / f"{frame['file_path']}.png").convert("RGBA")) for frame in frames]


def on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def save_rgb(rgba: np.ndarray, path: Path, number: int) -> None:
    Image.fromarray(on_white(rgba)).save(path)


def base_meta(suffix: str = ".png") -> Meta:
    """Content of the transforms.json of the first training views."""
    meta = json.loads((TINY_SCENE / "transforms_train.json").read_text())
    focal = SIZE / 2 / math.tan(meta["camera_angle_x"] / 2)
    frames = [
        {"file_path": f"images/{number}{suffix}", "transform_matrix": frame["transform_matrix"]}
        for number, frame in enumerate(meta["frames"][:COUNT])
    ]
    return {"w": SIZE, "h": SIZE, "fl_x": focal, "fl_y": focal, "cx": 50.0, "cy": 50.0, "frames": frames}


def write_capture(folder: Path, *, save: Save = save_rgb, suffix: str = ".png", meta: Meta | None = None) -> Path:
    """A capture for nerfstudio-data and instant-ngp-data."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, photo in enumerate(base_photos()):
        save(photo, folder / "images" / f"{number}{suffix}", number)
    (folder / "transforms.json").write_text(json.dumps(base_meta(suffix) if meta is None else meta))
    return folder


def datamanager(
    folder: Path, dataparser: DataParserConfig | None = None, *, test_mode: str = "val", **settings
) -> FewShotDataManager:
    """The few-shot datamanager on a capture, as training builds it."""
    parser = NerfstudioDataParserConfig() if dataparser is None else dataparser
    config = FewShotDataManagerConfig(
        dataparser=replace(parser, data=folder),
        train_num_rays_per_batch=64,
        eval_num_rays_per_batch=64,
        **settings,
    )
    return config.setup(device="cpu", test_mode=test_mode)


def photos_of(manager: FewShotDataManager) -> list[np.ndarray]:
    """The training photos as they are trained on: RGB in [0, 1], transparency on white."""
    dataset = manager.train_dataset
    images = (dataset.get_image_float32(index) for index in range(len(dataset)))
    blended = (i[..., :3] * i[..., 3:] + 1 - i[..., 3:] if i.shape[-1] == 4 else i for i in images)
    return [image.numpy() for image in blended]


def difference_from_base(manager: FewShotDataManager) -> float:
    """Largest mean difference between a photo and the shipped scene's, in [0, 1]."""
    expected = [on_white(photo) / 255 for photo in base_photos()]
    return max(np.abs(a - b).mean() for a, b in zip(photos_of(manager), expected, strict=True))


def cameras_agree(manager: FewShotDataManager, reference: FewShotDataManager) -> bool:
    """Whether both have the same intrinsics, sizes and poses."""
    ours, theirs = manager.train_dataset.cameras, reference.train_dataset.cameras
    names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height")
    return all(torch.allclose(getattr(ours, n).double(), getattr(theirs, n).double(), atol=1e-5) for n in names)
