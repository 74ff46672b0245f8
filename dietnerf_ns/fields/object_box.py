"""The bounding box of an object, and the segments of rays inside it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from nerfstudio.model_components.scene_colliders import NearFarCollider
from torch import Tensor

from dietnerf_ns.geometry.cameras import (
    nearest_point_to_axes,
    surround_one_object,
    up_vector,
    viewing_directions,
)
from dietnerf_ns.geometry.sphere import horizontal_axes
from dietnerf_ns.geometry.visual_hull import VisualHull
from dietnerf_ns.utils.errors import SettingError

MARGIN = 0.02
ROUNDING = 1 + 1e-4  # rays end on the faces of the box
NEGLIGIBLE = 1e-6
"""Length of the segment of a ray that misses a box, in scene units."""
FAR_OUTSIDE = 4.0
NOT_CLOSE_UP = 0.7
"""Part of what the median photo shows that a photo must show to count."""


class ObjectBox(SpatialDistortion):
    """A box of any orientation and proportions; the cube around it is scaled to [-2, 2].

    Args:
        axes: rows are the directions of the box's sides, unit vectors in the world frame.
        center: centre of the box in the world frame.
        half_sizes: half the box's extent along each of the axes, in scene units.
    """

    axes: Float[Tensor, "3 3"]
    center: Float[Tensor, "3"]
    half_sizes: Float[Tensor, "3"]

    def __init__(self, axes: Float[Tensor, "3 3"], center: Float[Tensor, "3"], half_sizes: Float[Tensor, "3"]):
        super().__init__()
        self.register_buffer("axes", axes)
        self.register_buffer("center", center)
        self.register_buffer("half_sizes", half_sizes)

    @classmethod
    def of(cls, aabb: Float[Tensor, "2 3"]) -> ObjectBox:
        """The axis-aligned box between two corners."""
        aabb = aabb.detach().cpu()
        return cls(torch.eye(3), aabb.mean(dim=0), (aabb[1] - aabb[0]) / 2)

    @classmethod
    def seen_by(cls, cameras: Cameras, *, scene: str = "object", has_hull: bool = False) -> ObjectBox:
        """An upright cube around the point that all cameras look at, for an object that the photos show whole.

        Upright, because most edges of objects are parallel or perpendicular to their up axis and feature planes
        represent edges best that are parallel to them. Half a side is what fits into the longer side of the photos at
        the centre's distance, in the photo that shows least; photos from much nearer than the others do not count. On
        NeRF-Synthetic scenes, whose cameras are 4.03 from the centre, this gives 1.45, where 1.5 is customary.

        Args:
            cameras: the training cameras, OpenGL axes.
            scene: the kind of scene that needs the cube, which the error names.
            has_hull: whether silhouettes will reduce the cube. Then it is what the median photo shows, because
                photos that cut the object off tell nothing about its size.

        Raises:
            SettingError: the cameras do not surround anything.
        """
        if not surround_one_object(cameras):
            raise SettingError(
                "scene",
                scene,
                "needs pinhole cameras that look at one object from directions at least 60 degrees apart; use auto, "
                "front-facing or inside-out.",
            )
        poses = cameras.camera_to_worlds.detach().cpu()
        center, up = nearest_point_to_axes(poses), up_vector(poses)
        to_center = center - poses[:, :, 3]
        axes_miss_by = torch.linalg.cross(to_center, viewing_directions(poses)).norm(dim=-1)
        half_view = torch.maximum(cameras.width / cameras.fx, cameras.height / cameras.fy).cpu()[:, 0] / 2
        shown = to_center.norm(dim=-1) * half_view + axes_miss_by
        typical = shown.median()
        half_size = typical if has_hull else shown[shown >= NOT_CLOSE_UP * typical].min()
        return cls(torch.stack([*horizontal_axes(up), up]), center, half_size.expand(3).clone())

    def shrunk_to(self, hull: VisualHull) -> ObjectBox:
        """The box around the intersection of a hull and this box, with a margin of 2 % of this box.

        Raises:
            InconsistentSilhouettes: see `VisualHull.extent`.
        """
        corners = hull.extent(self.axes, self.center, self.half_sizes)
        margin = MARGIN * self.half_sizes
        low = torch.maximum(corners[0] - margin, -self.half_sizes)
        high = torch.minimum(corners[1] + margin, self.half_sizes)
        return ObjectBox(self.axes, self.center + (low + high) / 2 @ self.axes, (high - low) / 2)

    def local(self, vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Components of world vectors along the box's axes."""
        with torch.autocast(vectors.device.type, enabled=False):  # half precision is too coarse for coordinates
            return vectors @ self.axes.to(vectors).T

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Map world positions in the box to [-2, 2]^3; all others, where nothing was trained, land outside."""
        local = self.local(positions - self.center)
        outside = (local.abs() > ROUNDING * self.half_sizes).any(dim=-1, keepdim=True)
        return torch.where(outside, FAR_OUTSIDE, 2 * local / self.half_sizes.max())


class BoxCollider(NearFarCollider):
    """Rays start and end where they enter and leave a box, within the near and far planes.

    A ray that misses the box gets a negligible length at its start.

    Args:
        box: the box in the world frame.
        near_plane: smallest distance along a ray, in scene units.
        far_plane: largest distance along a ray.
    """

    def __init__(self, box: ObjectBox, near_plane: float, far_plane: float):
        super().__init__(near_plane=near_plane, far_plane=far_plane, reset_near_plane=False)
        self.box = box
        self.planes_cut_images = True
        """Whether the planes limit rays in evaluation, too. They belong to the distances of the photos; without them, a
        camera that is nearer or further away sees the whole box."""

    def set_nears_and_fars(self, ray_bundle: RayBundle) -> RayBundle:
        """The bundle with `nears` and `fars`, each [num_rays, 1]."""
        bundle = super().set_nears_and_fars(ray_bundle)
        assert bundle.nears is not None and bundle.fars is not None
        if not (self.training or self.planes_cut_images):
            bundle.nears, bundle.fars = torch.zeros_like(bundle.nears), torch.full_like(bundle.fars, torch.inf)
        origins, directions = self.box.local(bundle.origins - self.box.center), self.box.local(bundle.directions)
        directions = torch.where(directions.abs() < 1e-9, 1e-9, directions)
        crossings = torch.stack([(side * self.box.half_sizes - origins) / directions for side in (-1, 1)])
        enters = crossings.amin(dim=0).amax(dim=-1, keepdim=True)
        leaves = crossings.amax(dim=0).amin(dim=-1, keepdim=True)
        nears, fars = torch.maximum(enters, bundle.nears), torch.minimum(leaves, bundle.fars)
        hits = nears < fars
        bundle.nears = torch.where(hits, nears, bundle.nears)
        bundle.fars = torch.where(hits, fars, bundle.nears + NEGLIGIBLE)
        return bundle

    @staticmethod
    def hit_by(rays: RayBundle) -> Bool[Tensor, "num_rays"]:
        """Whether rays pass through the box.

        Args:
            rays: flat, with the `nears` and `fars` of such a collider.
        """
        assert rays.nears is not None and rays.fars is not None
        return (rays.fars - rays.nears)[:, 0] > 2 * NEGLIGIBLE
