"""Contracts the space in front of front-facing cameras into a cube."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from torch import Tensor
from torch.nn.functional import normalize

from dietnerf_ns.geometry.cameras import is_front_facing
from dietnerf_ns.utils.errors import SettingError

STEEPEST = 75.0
"""Largest angle in degrees between a photo's ray and the mean axis that the space is as wide as."""


class FrontFacingContraction(SpatialDistortion):
    """Normalised device coordinates of the mean camera (NeRF, Mildenhall et al. 2020, appendix C), scaled to [-2, 2].

    Resolution follows what the photos resolve: constant per pixel sideways, and per disparity in depth. Depth starts at
    the near plane, which is the largest distance of a camera from the cameras' mean position: photos are rarely taken
    from closer to an object than the photographer moves between them.

    Args:
        cameras: the training cameras, OpenGL axes.

    Raises:
        SettingError: the cameras are not front-facing.
    """

    axes: Float[Tensor, "3 3"]
    """Rows are the axes of the mean camera in the world frame."""
    center: Float[Tensor, "3"]
    near: Float[Tensor, ""]
    half_extent: Float[Tensor, "2"]

    def __init__(self, cameras: Cameras):
        super().__init__()
        if not is_front_facing(cameras):
            raise SettingError(
                "scene",
                "front-facing",
                "needs pinhole cameras at different positions whose viewing directions are within 60 degrees; use "
                "auto, object, around or inside-out.",
            )
        poses = cameras.camera_to_worlds.detach().cpu()
        backward = normalize(poses[:, :, 2].mean(0), dim=0)
        right = normalize(torch.linalg.cross(poses[:, :, 1].mean(0), backward), dim=0)
        axes = torch.stack([right, torch.linalg.cross(backward, right), backward])  # rows: world -> mean camera
        center = poses[:, :, 3].mean(0)
        self.register_buffer("axes", axes)
        self.register_buffer("center", center)
        self.register_buffer("near", (poses[:, :, 3] - center).norm(dim=-1).max())
        self.register_buffer("half_extent", self._half_extent(cameras))

    def _half_extent(self, cameras: Cameras) -> Float[Tensor, "2"]:
        """Largest |x / depth| and |y / depth| that a photo shows beyond twice the near depth.

        Rays that are steeper to the mean axis than `STEEPEST` count as if they had this angle: they would leave hardly
        any of the space to what most photos show.
        """
        rays = [self._corner_rays(cameras[i : i + 1]) for i in range(len(cameras))]
        origins, directions = (torch.cat(parts) for parts in zip(*rays, strict=True))
        sideways = directions[:, :2].norm(dim=-1, keepdim=True)
        forward = torch.maximum(-directions[:, 2:], sideways / math.tan(math.radians(STEEPEST)))
        at_infinity = (directions[:, :2] / forward).abs()
        depth = 2 * self.near
        along = (depth + origins[:, 2:]) / forward
        at_twice_near = (origins[:, :2] + along * directions[:, :2]).abs() / depth
        return torch.maximum(at_infinity, at_twice_near).max(dim=0).values

    def _corner_rays(self, camera: Cameras) -> tuple[Float[Tensor, "4 3"], Float[Tensor, "4 3"]]:
        """Origins and directions of the rays through the image corners, in the mean camera's frame."""
        width, height = float(camera.width[0]), float(camera.height[0])
        corners = torch.tensor([[0.0, 0.0], [0.0, width], [height, 0.0], [height, width]])  # (y, x)
        rays = camera.to("cpu").generate_rays(camera_indices=torch.zeros(4, 1, dtype=torch.long), coords=corners)
        return (rays.origins - self.center) @ self.axes.T, rays.directions @ self.axes.T

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Map what the photos see to [-2, 2]^3; points in front of the near plane land outside."""
        with torch.autocast(positions.device.type, enabled=False):  # half precision is too coarse for coordinates
            local = (positions.float() - self.center) @ self.axes.T
        depth = torch.maximum(-local[..., 2:], 1e-3 * self.near)
        sideways = local[..., :2] / (depth * self.half_extent)
        return 2 * torch.cat([sideways, 1 - 2 * self.near / depth], dim=-1)
