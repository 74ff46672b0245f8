"""A corner of a room with patterned floor and walls, ray traced: photos with features and known poses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT, FOCAL_LENGTH = 320, 240, 300.0
SIDE = 4.0
"""Of the floor and of the two walls; the corner is at the origin, z is up."""
TEXELS = 512
LOOKED_AT = np.array([1.3, 1.3, 0.9])


def corner_photo(position: np.ndarray, *, width: int = WIDTH, height: int = HEIGHT) -> tuple[np.ndarray, np.ndarray]:
    """A photo of the corner from a position, and its pose.

    Args:
        position: of the camera, which looks at the middle of the corner with a level horizon.
        width: of the photo in pixels; the focal length is 300 / 320 of it.
        height: of the photo in pixels.

    Returns:
        RGB [height, width, 3] in 0 to 255, and the camera-to-world matrix [3, 4] with OpenGL axes.
    """
    backward = (position - LOOKED_AT) / np.linalg.norm(position - LOOKED_AT)
    right = np.cross([0, 0, 1], backward)
    right /= np.linalg.norm(right)
    pose = np.stack([right, np.cross(backward, right), backward, position], axis=1)
    focal = FOCAL_LENGTH * width / WIDTH
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inside = np.stack([(x - width / 2) / focal, (height / 2 - y) / focal, -np.ones_like(x)], axis=-1)
    directions = inside @ pose[:, :3].T
    distances = np.where(directions < 0, -position / np.minimum(directions, -1e-9), np.inf)  # to the planes x, y, z = 0
    plane = distances.argmin(axis=-1)
    points = position + distances.min(axis=-1, keepdims=True) * directions
    photo = np.zeros((height, width, 3), np.uint8)
    for axis, (first, second) in enumerate(((1, 2), (0, 2), (0, 1))):
        maps = (points[..., [first, second]] * (TEXELS / SIDE)).astype(np.float32)
        seen = cv2.remap(_pattern(axis), maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        photo[plane == axis] = seen[plane == axis]
    return photo, pose


def _pattern(seed: int) -> np.ndarray:
    """Blobs of several sizes, [TEXELS, TEXELS, 3]."""
    random = np.random.default_rng(seed)
    total = np.zeros((TEXELS, TEXELS, 3))
    for cells in (16, 48, 128):
        noise = random.uniform(-1, 1, (cells, cells, 3))
        total += cv2.resize(noise, (TEXELS, TEXELS), interpolation=cv2.INTER_CUBIC)
    return np.clip(127 + 90 * total, 0, 255).astype(np.uint8)


def corner_positions(count: int) -> np.ndarray:
    """Positions of cameras side by side in front of the corner, at two heights, [count, 3]."""
    azimuths = np.radians(np.linspace(20, 70, count))
    heights = 1.6 + 0.5 * (np.arange(count) % 2)
    return np.stack([3.6 * np.cos(azimuths), 3.6 * np.sin(azimuths), heights], axis=1)


def corner_photos(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Write photos 0.jpg, 1.jpg, ... of the corner; returns their poses by name."""
    folder.mkdir(parents=True, exist_ok=True)
    poses = {}
    for index, position in enumerate(corner_positions(count)):
        photo, poses[f"{index}.jpg"] = corner_photo(position)
        Image.fromarray(photo).save(folder / f"{index}.jpg", quality=95)
    return poses
