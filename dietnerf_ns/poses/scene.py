"""The scene folder that nerfstudio-data reads: transforms.json, photos in several sizes, masks, sparse points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from dietnerf_ns.data.photos import Size, read_photo
from dietnerf_ns.geometry.cameras import (
    SURROUND_ANGLE_DEG,
    is_in_front,
    nearest_point_to_axes,
    up_vector,
    widest_viewing_angle,
)
from dietnerf_ns.geometry.sphere import horizontal_axes
from dietnerf_ns.poses.photos import size_within
from dietnerf_ns.utils.files import write_json
from dietnerf_ns.utils.images import downscale_by_area

DOWNSCALES = (2, 4, 8)
SHORTEST_SIDE = 64
"""Of the smallest copy of the photos, in pixels."""
JPEG_QUALITY = 95
POINTS_FILE = "sparse_pc.ply"


@dataclass(frozen=True)
class PosedPhotos:
    """Photos with poses, in the world frame of the scene: z up, the origin is what the cameras look at."""

    names: list[str]
    """Sorted."""
    camera_to_worlds: Float[Tensor, "n 3 4"]
    """OpenGL axes."""
    model: pycolmap.Reconstruction
    """In the same world frame; its cameras have OpenCV's axes."""


def camera_to_world(image: pycolmap.Image) -> Float[np.ndarray, "3 4"]:
    """Pose of a posed image with OpenGL axes in the model's world frame."""
    matrix = image.cam_from_world().inverse().matrix()
    matrix[:, 1:3] *= -1
    return matrix


def in_world_frame(model: pycolmap.Reconstruction) -> PosedPhotos:
    """Move a model so that z is up, the first photo's camera is in front (at -y), and the cameras look at the origin.

    The mean distance of the cameras from the origin becomes 1.

    Args:
        model: is changed.
    """
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    poses = torch.from_numpy(np.stack([camera_to_world(image) for image in images])).float()
    center, up = _center(poses, model), up_vector(poses)
    to_first = poses[0, :, 3] - center
    front = to_first - (to_first @ up) * up
    if float(front.norm()) < 1e-3 * float(to_first.norm()):
        front = horizontal_axes(up)[0]
    back = -front / front.norm()
    rotation = torch.stack([torch.linalg.cross(back, up), back, up]).double().numpy()
    scale = 1 / float((poses[:, :, 3] - center).norm(dim=-1).mean())
    moved = -scale * rotation @ center.double().numpy()
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), moved))
    images = [model.images[image.image_id] for image in images]
    return PosedPhotos(
        [image.name for image in images],
        torch.from_numpy(np.stack([camera_to_world(image) for image in images])).float(),
        model,
    )


def _center(poses: Float[Tensor, "n 3 4"], model: pycolmap.Reconstruction) -> Float[Tensor, "3"]:
    """What the cameras look at: where their axes meet, or the middle of the points if these are nearly parallel."""
    nearest = nearest_point_to_axes(poses)
    if widest_viewing_angle(poses) >= SURROUND_ANGLE_DEG / 3 and is_in_front(nearest, poses):
        return nearest
    points = np.stack([point.xyz for point in model.points3D.values()])
    return torch.from_numpy(np.median(points, axis=0)).float()


def write_scene(
    folder: Path,
    posed: PosedPhotos,
    photos: Path,
    *,
    longest: int,
    masks: Mapping[str, Bool[np.ndarray, "height width"]],
    cut_out: bool,
) -> None:
    """Write a scene.

    Args:
        folder: existing and empty.
        posed: photos and poses.
        photos: folder of the upright photos, as large as those that were posed.
        longest: pixels along the longer side of the largest copies.
        masks: by name, as large as the photos; True where a pixel counts.
        cut_out: whether photos become transparent where their mask is False; otherwise masks are written as files.
    """
    images = {image.name: image for image in posed.model.images.values()}
    cameras = [images[name].camera for name in posed.names]
    shortest = min(min(size_within((camera.width, camera.height), longest)) for camera in cameras)
    factors = [1, *(factor for factor in DOWNSCALES if shortest // factor >= SHORTEST_SIDE)]
    frames = []
    for name, pose in zip(posed.names, posed.camera_to_worlds, strict=True):
        pixels = read_photo(photos / name)
        size = size_within((pixels.shape[1], pixels.shape[0]), longest)
        frame: dict[str, Any] = {"transform_matrix": [*pose.double().tolist(), [0.0, 0.0, 0.0, 1.0]]}
        if name in masks:
            if cut_out:
                alpha = masks[name] * np.uint8(255)
                if pixels.shape[-1] == 4:
                    alpha = np.minimum(alpha, pixels[..., 3])
                pixels = np.dstack([pixels[..., :3], alpha])
            else:
                mask = _reduced(masks[name], size)
                frame["mask_path"] = _write_copies(folder, "masks", f"{Path(name).stem}.png", mask, factors)
        copy = name if pixels.shape[-1] == 3 else f"{Path(name).stem}.png"
        frame["file_path"] = _write_copies(folder, "images", copy, _reduced(pixels, size), factors)
        frames.append(frame | intrinsics(images[name].camera, size))
    posed.model.export_PLY(folder / POINTS_FILE)
    write_json(folder / "transforms.json", _transforms(frames))


def intrinsics(camera: pycolmap.Camera, size: Size) -> dict[str, Any]:
    """nerfstudio's intrinsics of a camera for images of another size."""
    rescaled = pycolmap.Camera(camera.todict())
    rescaled.rescale(*size)
    focal, cx, cy, k1 = rescaled.params
    return {"w": size[0], "h": size[1], "fl_x": focal, "fl_y": focal, "cx": cx, "cy": cy, "k1": k1}


def _transforms(frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Intrinsics that all frames share are written once."""
    own = {"file_path", "mask_path", "transform_matrix"}
    shared = {key: value for key, value in frames[0].items() if key not in own}
    if any(frame[key] != value for frame in frames for key, value in shared.items()):
        shared = {}
    frames = [{key: value for key, value in frame.items() if key not in shared} for frame in frames]
    return {"camera_model": "OPENCV", **shared, "ply_file_path": POINTS_FILE, "frames": frames}


def _reduced(pixels: np.ndarray, size: Size) -> np.ndarray:
    """A photo, or a mask of booleans, of another size."""
    if pixels.dtype == bool:
        return cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    return downscale_by_area(pixels, size)


def _write_copies(folder: Path, kind: str, name: str, pixels: np.ndarray, factors: Sequence[int]) -> str:
    """Write copies of an image under nerfstudio's names; returns the path of the first, the largest, in the folder."""
    height, width = pixels.shape[:2]
    for factor in factors:
        size = width // factor, height // factor
        target = folder / (kind if factor == 1 else f"{kind}_{factor}") / name
        target.parent.mkdir(exist_ok=True)
        # nerfstudio divides intrinsics by the factor itself: what is left over of an odd size is cut off.
        copy = _reduced(pixels[: factor * size[1], : factor * size[0]], size)
        # nerfstudio's own methods need masks of one channel, in which all but 0 counts.
        Image.fromarray(copy * np.uint8(255) if copy.dtype == bool else copy).save(target, quality=JPEG_QUALITY)
    return f"{kind}/{name}"
