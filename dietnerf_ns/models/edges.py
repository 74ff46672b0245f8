"""Smooth edges: a pixel of a photo is the average over its area, and not the colour at its centre."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor
from torch.nn.functional import max_pool2d

EDGE_CONTRAST = 0.2


def edge_pixels(rgb: Float[Tensor, "height width 3"]) -> Int[Tensor, "pixels 2"]:
    """Row and column of the pixels whose 3 x 3 neighbourhood differs by more than 0.2 in some channel.

    Args:
        rgb: an image, RGB in [0, 1].
    """
    channels = rgb.permute(2, 0, 1)[None]
    highest, lowest = (sign * max_pool2d(sign * channels, 3, stride=1, padding=1) for sign in (1, -1))
    return ((highest - lowest).amax(dim=1)[0] > EDGE_CONTRAST).nonzero()


def rays_within(
    camera: Cameras, pixels: Int[Tensor, "pixels 2"], per_side: int, obb_box: OrientedBox | None = None
) -> RayBundle:
    """Rays [pixels, per_side**2] that are spread evenly over the area of each pixel.

    Args:
        camera: one camera, shape [1].
        pixels: row and column of each, on the camera's device.
        per_side: rays along a pixel's side.
        obb_box: where rays start and end, as in nerfstudio's `Cameras.generate_rays`.
    """
    steps = (torch.arange(per_side, device=pixels.device) + 0.5) / per_side
    coords = pixels[:, None] + torch.cartesian_prod(steps, steps)
    indices = torch.zeros(*coords.shape[:2], 1, dtype=torch.long, device=pixels.device)
    return camera.generate_rays(camera_indices=indices, coords=coords, obb_box=obb_box)
