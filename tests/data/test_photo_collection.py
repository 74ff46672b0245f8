"""A photo collection as the Phototourism dataset has it: a COLMAP model, other sizes, other exposures."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from tests.helpers.commands import in_this_process
from tests.helpers.corner import FOCAL_LENGTH, WIDTH, corner_photo, corner_positions

COUNT = 8


def photo_collection(folder: Path) -> None:
    """Photos of the corner, upright and wide, from dark to bright, with their model in dense/sparse."""
    (folder / "dense" / "images").mkdir(parents=True)
    (folder / "dense" / "sparse").mkdir()
    model = pycolmap.Reconstruction()
    for index, position in enumerate(corner_positions(COUNT)):
        width, height = (80, 60) if index % 2 else (60, 80)
        photo, pose = corner_photo(position, width=width, height=height)
        darker = np.uint8((0.4 + 0.08 * index) * photo)
        Image.fromarray(darker).save(folder / "dense" / "images" / f"{index}.jpg")
        focal = FOCAL_LENGTH * width / WIDTH
        parameters = [focal, focal, width / 2, height / 2]
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(camera_id=index + 1, model="PINHOLE", width=width, height=height, params=parameters)
        )
        pose[:, 1:3] *= -1
        world_from_camera = pycolmap.Rigid3d(pycolmap.Rotation3d(np.ascontiguousarray(pose[:, :3])), pose[:, 3])
        image = pycolmap.Image(image_id=index + 1, camera_id=index + 1, name=f"{index}.jpg")
        model.add_image_with_trivial_frame(image, world_from_camera.inverse())
    model.write_binary(folder / "dense" / "sparse")


@pytest.mark.slow
def test_each_photo_of_a_collection_gets_an_appearance(tmp_path):
    photo_collection(tmp_path / "collection")
    appearance = ["--pipeline.model.use-appearance-embedding", True]
    short = ["--max-num-iterations", 22, "--vis", "tensorboard", "--timestamp", "run"]  # with a semantic view
    arguments = ["--data", "collection", *short, *appearance, "phototourism-data"]
    in_this_process("ns-train", "dietnerf-tiny", *arguments, cwd=tmp_path)
    (checkpoint,) = (tmp_path / "outputs" / "collection").rglob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=False)
    ending = "embedding_appearance.embedding.weight"
    (embedding,) = (value for name, value in saved["pipeline"].items() if name.endswith(ending))
    assert len(embedding) == COUNT
    moments = [state["exp_avg_sq"] for state in saved["optimizers"]["fields"]["state"].values()]
    (of_embedding,) = (moment for moment in moments if moment.shape == embedding.shape)
    assert (of_embedding.sum(dim=1) > 0).all(), "every photo has trained its own"
