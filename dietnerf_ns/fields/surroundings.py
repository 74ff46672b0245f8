"""The space of an object with its surroundings: a contraction around what the cameras look at, and the rays in it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from nerfstudio.model_components.ray_samplers import SpacedSampler
from nerfstudio.model_components.scene_colliders import NearFarCollider
from torch import Tensor

from dietnerf_ns.fields.object_box import ObjectBox

START_RADIUS = 1.2
"""Radius of the sphere in which rays start, in units of half a side of the cube."""
FIRST_RADIUS, LAST_RADIUS = 0.7, 170.0
"""Radius of the sampled space at the start and at the end of its growth, in units of half a side of the cube."""


class CubeContraction(SpatialDistortion):
    """The contraction of mip-NeRF 360 (Barron et al., CVPR 2022, equation 10) around a cube, with the maximum norm.

    In units of half a side of the cube and relative to its centre, x stays x inside the cube, and (2 - 1 / |x|) x / |x|
    replaces it outside. The cube fills the middle half of [-2, 2]^3 along each axis.

    Args:
        cube: with three equal sides.
    """

    axes: Float[Tensor, "3 3"]
    """Rows are the directions of the cube's sides in the world frame."""
    center: Float[Tensor, "3"]
    half_size: Float[Tensor, ""]
    """Half a side, in scene units."""

    def __init__(self, cube: ObjectBox):
        super().__init__()
        self.register_buffer("axes", cube.axes)
        self.register_buffer("center", cube.center)
        self.register_buffer("half_size", cube.half_sizes.max())

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Map the world to [-2, 2]^3."""
        with torch.autocast(positions.device.type, enabled=False):  # half precision is too coarse for coordinates
            local = (positions.float() - self.center) @ self.axes.T / self.half_size
        distance = local.abs().amax(dim=-1, keepdim=True).clamp_min(1)
        return (2 - 1 / distance) * local / distance


class GrowingSphereCollider(NearFarCollider):
    """Rays start in a sphere around what the cameras look at; the space in which they are sampled grows from there.

    A few photos can be explained without the object: each one by a picture of it that hangs where no other camera
    looks. Two limits prevent this. Nothing is sampled between a camera and the sphere. And at first nothing is sampled
    outside a smaller sphere either, which then grows beyond all bounds: what all photos show is explained before what
    few of them show (sample space annealing: RegNeRF, Niemeyer et al., CVPR 2022).

    A ray that misses the sphere starts at the point nearest to its centre.

    Args:
        space: gives the centre, and the unit of the radii.
        near_plane: smallest distance along a ray, in scene units.
        far_plane: largest distance along a ray.
    """

    radius: Float[Tensor, ""]
    """Of the sampled space, in units of half a side of the cube; infinite when it has grown."""

    def __init__(self, space: CubeContraction, near_plane: float, far_plane: float):
        super().__init__(near_plane=near_plane, far_plane=far_plane, reset_near_plane=False)
        self.space = space
        self.register_buffer("radius", torch.tensor(math.inf))

    def grow(self, progress: float) -> None:
        """Set the sampled space. Its radius grows by the same factor at each step: slowly at first, in the middle.

        Args:
            progress: 0 at the start, 1 when all of space is sampled.
        """
        self.radius.fill_(FIRST_RADIUS * (LAST_RADIUS / FIRST_RADIUS) ** progress if progress < 1 else math.inf)

    def set_nears_and_fars(self, ray_bundle: RayBundle) -> RayBundle:
        """The bundle with `nears` and `fars`, each [num_rays, 1]."""
        bundle = super().set_nears_and_fars(ray_bundle)
        assert bundle.nears is not None and bundle.fars is not None
        to_center = self.space.center - bundle.origins
        nearest = (to_center * bundle.directions).sum(dim=-1, keepdim=True)
        squared_distance = to_center.square().sum(dim=-1, keepdim=True) - nearest.square()
        start_radius = self.radius.clamp_max(START_RADIUS)
        enters = nearest - self._half_chord(start_radius, squared_distance)
        leaves = nearest + self._half_chord(self.radius, squared_distance)
        bundle.nears = torch.maximum(enters, bundle.nears)
        bundle.fars = torch.minimum(leaves, bundle.fars).maximum(bundle.nears + 1e-3 * self.space.half_size)
        return bundle

    def _half_chord(
        self, radius: Float[Tensor, ""], squared_distance: Float[Tensor, "num_rays 1"]
    ) -> Float[Tensor, "num_rays 1"]:
        """Half the length of a ray's segment in a sphere that it passes at some distance; 0 if it misses it."""
        return ((radius * self.space.half_size).square() - squared_distance).clamp_min(0).sqrt()


class ReachSampler(SpacedSampler):
    """nerfacto's first sampler at the scale of a scene: half the samples within reach, half beyond it.

    Samples are uniform in distance within reach, and beyond it in disparity.

    Args:
        reach: distance along a ray, in scene units.
        single_jitter: whether the samples of a ray are moved together while training.
    """

    def __init__(self, reach: float, single_jitter: bool):
        super().__init__(
            spacing_fn=lambda t: torch.where(t < reach, t / (2 * reach), 1 - reach / (2 * t)),
            spacing_fn_inv=lambda s: torch.where(s < 0.5, 2 * reach * s, reach / (2 - 2 * s)),
            single_jitter=single_jitter,
        )
