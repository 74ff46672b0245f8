"""The box of one thing that cameras surround."""

from __future__ import annotations

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from torch import Tensor

from dietnerf_ns.errors import UserError
from dietnerf_ns.semantic.poses import cameras_surround_scene, horizontal_axes, nearest_point_to_axes, up_vector
from dietnerf_ns.views import viewing_directions


def surround_one_thing(cameras: Cameras) -> bool:
    """Whether these are pinhole cameras that look at one thing from clearly different sides."""
    pinhole = bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all())
    return pinhole and cameras_surround_scene(cameras.camera_to_worlds.cpu())


class ObjectBox(SpatialDistortion):
    """An upright cube around the point that all cameras look at, scaled to [-2, 2], for a thing that photos show whole.

    Upright: things mostly have edges along and across their up, and feature planes hold those best that are parallel to
    them. Half a side is what fits into the photos' longer side at the centre's distance, in the photo that shows least.
    Near and far plane leave a sphere through the middles of the cube's edges between them. On NeRF-Synthetic scenes,
    whose cameras are 4.03 from the centre, this gives a half side of 1.45, near 1.98 and far 6.08, where 1.5, 2 and 6
    are customary.

    Args:
        cameras: the training cameras, OpenGL axes.

    Raises:
        UserError: the cameras do not surround anything.
    """

    def __init__(self, cameras: Cameras):
        super().__init__()
        if not surround_one_thing(cameras):
            raise UserError(
                "--pipeline.model.scene object: needs pinhole cameras that look at one thing from sides at least 60 "
                "degrees apart; use auto, around or front-facing."
            )
        poses = cameras.camera_to_worlds.detach().cpu()
        center, up = nearest_point_to_axes(poses), up_vector(poses)
        to_center = center - poses[:, :, 3]
        distances = to_center.norm(dim=-1)
        axes_miss_by = torch.linalg.cross(to_center, viewing_directions(poses)).norm(dim=-1)
        half_view = torch.maximum(cameras.width / cameras.fx, cameras.height / cameras.fy).cpu()[:, 0] / 2
        half_size = (distances * half_view + axes_miss_by).min()
        self.register_buffer("axes", torch.stack([*horizontal_axes(up), up]))  # rows: world -> upright
        self.register_buffer("center", center)
        self.register_buffer("half_size", half_size)
        reach = 2**0.5 * half_size
        self.near = float(torch.maximum(distances.min() - reach, 0.05 * distances.min()))
        self.far = float(distances.max() + reach)

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """World positions to [-2, 2]^3 inside the cube; all others land outside."""
        with torch.autocast(positions.device.type, enabled=False):  # half precision is too coarse for coordinates
            return 2 * (positions.float() - self.center) @ self.axes.T / self.half_size
