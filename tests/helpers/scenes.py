"""Scenes and photos: copies of the shipped scene, synthetic images, and real scenes beside the repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def shared_scene(name: str) -> Path:
    """A real scene beside the repository; the test is skipped where it is absent."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the real scene {name} is not on this machine ({path})")
    return path


def blender_outputs(scene: Path, split: str = "train"):
    return BlenderDataParserConfig(data=scene).setup().get_dataparser_outputs(split)


def as_transforms_json(scene: Path, folder: Path, count: int) -> Path:
    """The tiny scene's first training views in the one-file format of nerfstudio-data and instant-ngp-data."""
    meta = json.loads((scene / "transforms_train.json").read_text())
    focal = 50 / torch.tan(torch.tensor(meta["camera_angle_x"] / 2)).item()
    (folder / "images").mkdir(parents=True)
    frames = []
    for index, frame in enumerate(meta["frames"][:count]):
        shutil.copy(scene / f"{frame['file_path']}.png", folder / "images" / f"{index}.png")
        frames.append({"file_path": f"images/{index}.png", "transform_matrix": frame["transform_matrix"]})
    intrinsics = {"w": 100, "h": 100, "fl_x": focal, "fl_y": focal, "cx": 50, "cy": 50}
    (folder / "transforms.json").write_text(json.dumps(intrinsics | {"frames": frames}))
    return folder


def folder_of_images(folder, colours, size=(6, 4)):
    folder.mkdir(parents=True)
    for i, colour in enumerate(colours):
        Image.new("RGB", size, colour).save(folder / f"{i}.png")
    return folder
