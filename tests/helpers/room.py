"""A ball on the floor of a furnished room, ray traced, with camera paths as people take them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.helpers.cameras import pinhole_cameras

BALL_CENTER, BALL_RADIUS = torch.tensor([0.0, 0.0, 0.5]), 0.5
ROOM = torch.tensor([[-4.0, -4.0, 0.0], [4.0, 4.0, 3.5]])
"""Two corners; the floor is at 0."""


def room_capture(folder: Path, poses: torch.Tensor, *, test_poses: torch.Tensor, side: int = 48) -> Path:
    """A capture in nerfstudio's format: photos to train on, and others as `val_filenames` and `test_filenames`.

    Args:
        folder: is made.
        poses: camera-to-world matrices [n, 3, 4] of the training photos, OpenGL axes.
        test_poses: of the others.
        side: of the square photos in pixels.
    """
    (folder / "images").mkdir(parents=True)
    focal, names, frames = 1.1 * side, [], []
    for index, pose in enumerate(torch.cat([poses, test_poses])):
        names.append(f"images/{index:03}.png")
        Image.fromarray(photo(pose, side, focal)).save(folder / names[-1])
        matrix = torch.cat([pose, torch.tensor([[0.0, 0.0, 0.0, 1.0]])]).tolist()
        frames.append({"file_path": names[-1], "transform_matrix": matrix})
    intrinsics = {"w": side, "h": side, "fl_x": focal, "fl_y": focal, "cx": side / 2, "cy": side / 2}
    train, test = names[: len(poses)], names[len(poses) :]
    splits = {"train_filenames": train, "val_filenames": test, "test_filenames": test}
    (folder / "transforms.json").write_text(json.dumps(intrinsics | splits | {"frames": frames}))
    return folder


def photo(pose: torch.Tensor, side: int, focal: float) -> np.ndarray:
    """The room from a camera, [side, side, 3] in 0 to 255, four rays a pixel."""
    camera = pinhole_cameras(pose[None], width=2 * side, height=2 * side, focal=2 * focal)
    rays = camera.generate_rays(camera_indices=0)
    colours = _colours(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)).reshape(side, 2, side, 2, 3)
    return (255 * colours.mean(dim=(1, 3))).round().byte().numpy()


def _colours(origins: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    walls = ((ROOM[:, None] - origins) / directions).amax(dim=0).amin(dim=-1, keepdim=True)
    on_wall = origins + walls * directions
    room = (
        0.55 + 0.2 * torch.sin(2 * on_wall + torch.tensor([0.0, 2.0, 4.0])) + 0.2 * torch.sin(3.1 * on_wall.roll(1, -1))
    )
    from_ball = origins - BALL_CENTER
    along = (from_ball * directions).sum(-1, keepdim=True)
    discriminant = along.square() - from_ball.square().sum(-1, keepdim=True) + BALL_RADIUS**2
    normal = (from_ball + (-along - discriminant.clamp_min(0).sqrt()) * directions) / BALL_RADIUS
    stripes = (torch.sin(6 * normal[..., :1]) * torch.sin(5 * normal[..., 2:] + 1) > 0).float()
    ball = torch.tensor([0.85, 0.15, 0.1]) * stripes + torch.tensor([0.1, 0.25, 0.7]) * (1 - stripes)
    ball = ball * (0.6 + 0.4 * normal[..., 2:])
    return torch.where((discriminant > 0) & (along < 0), ball, room).clamp(0, 1)
