"""A density at the points of a grid in a box: which rays meet something, and where along them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor
from torch.nn.functional import grid_sample, linear, max_pool3d

from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox

MAX_OPTICAL_DEPTH = 0.01
"""Optical depth that cannot be seen: a ray with less has less accumulation than this."""
OPAQUE_CELL = 1.0
"""Largest optical depth of a cell when samples are placed. With more of it, all samples would be in the first cell with
a dense corner, and the surface may be in the next."""
COARSEST, FINEST = 16, 128
"""Grid points along a side of the grid, for small and for large images."""
POINTS_PER_CHUNK = 2**16
RAYS_PER_CHUNK, STEPS_AT_ONCE = 2**15, 16
"""Rays that are followed side by side, and the steps after which those that are done are left out."""

Density = Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 1"]]
"""Density per unit of length at positions in the world frame."""


class DensityGrid:
    """A density, evaluated once at each point of a regular grid.

    Args:
        box: in the world frame; there is nothing outside it.
        density: is evaluated without gradients.
        side: number of grid points along each side of the box.
        state: of what the density is computed from, for `is_of`.
    """

    def __init__(self, box: ObjectBox, density: Density, side: int, state: object = None):
        self.box, self.side, self.state = box, side, state
        self._cells = (side - 1) / 2
        line = torch.linspace(-1, 1, side, device=box.center.device)
        unit = torch.cartesian_prod(line, line, line)
        with torch.autocast(unit.device.type, enabled=False):  # half precision is too coarse for coordinates
            self._axes = box.axes / box.half_sizes[:, None]
            self._center = self._axes @ box.center
            points = box.center + (unit * box.half_sizes) @ box.axes
        with torch.no_grad():
            densities = torch.cat([density(chunk)[:, 0].float() for chunk in points.split(POINTS_PER_CHUNK)])
        grid = densities.view(1, 1, side, side, side)
        self._highest: Float[Tensor, "points"] = max_pool3d(grid, kernel_size=3, stride=1, padding=1).flatten()
        self._visible = self._highest > MAX_OPTICAL_DEPTH / (2 * float(box.half_sizes.norm()))
        opaque = OPAQUE_CELL * (side - 1) / (2 * float(box.half_sizes.max()))
        self._density = grid.clamp(max=opaque).permute(0, 1, 4, 3, 2).contiguous()  # as `grid_sample` names the axes

    def _unit(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """World positions in the cube [-1, 1]^3 that the box is mapped to."""
        with torch.autocast(positions.device.type, enabled=False):  # half precision is too coarse for coordinates
            return linear(positions.float(), self._axes, -self._center)

    def _point(self, *places: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """Number of the nearest grid point to places along the three axes, in units of grid points."""
        x, y, z = (place.round().clamp_(0, self.side - 1) for place in places)
        return self._number(x, y, z)

    def _number(
        self, x: Float[Tensor, "*batch"], y: Float[Tensor, "*batch"], z: Float[Tensor, "*batch"]
    ) -> Int[Tensor, "*batch"]:
        """Numbers of grid points from whole numbers along the axes; exact, because there are fewer than 2**24."""
        return (x * self.side).add_(y).mul_(self.side).add_(z).int()

    def is_of(self, side: int, state: object) -> bool:
        """Whether a grid with these arguments would be the same."""
        return (self.side, self.state) == (side, state)

    @torch.no_grad()
    def density(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 1"]:
        """Density between the grid points, at world positions in the box, for a proposal sampler.

        A cell is never denser than what lets light through to the next ones, so that samples placed by it surround a
        surface.
        """
        places = self._unit(positions).view(1, 1, 1, -1, 3)
        return grid_sample(self._density, places, padding_mode="border", align_corners=True).view(
            *positions.shape[:-1], 1
        )

    @torch.no_grad()
    def may_be_seen_at(self, positions: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """Whether positions in the box, in the world frame, are beside a point that is seen if all of the box is so."""
        places = ((self._unit(positions) + 1) * self._cells).round_().clamp_(0, self.side - 1)
        points = self._number(*places.unbind(-1))
        return self._visible.index_select(0, points.flatten()).view(points.shape)

    def hit_by(self, rays: RayBundle) -> Bool[Tensor, "num_rays"]:
        """Whether the optical depth of rays is large enough to be seen. What is beside a grid point counts as dense.

        Args:
            rays: flat, with the `nears` and `fars` of a `BoxCollider` with the same box.
        """
        return self._dense_along(rays, self._highest)

    def may_be_hit_by(self, rays: RayBundle) -> Bool[Tensor, "num_rays"]:
        """Whether rays pass a point that is dense enough to be seen if all of the box were so.

        For the coarse density of a proposal network, which the field may exceed where both are not empty.

        Args:
            rays: flat, with the `nears` and `fars` of a `BoxCollider` with the same box.
        """
        return self._dense_along(rays, torch.where(self._visible, math.inf, 0.0))

    def _dense_along(self, rays: RayBundle, density: Float[Tensor, "points"]) -> Bool[Tensor, "num_rays"]:
        """Whether the sum over a ray's points reaches `MAX_OPTICAL_DEPTH`.

        Rays are followed in steps of at most the diagonal of a cell, up to where it does.
        """
        starts = range(0, len(rays), RAYS_PER_CHUNK)
        return torch.cat([self._dense_along_few(rays[start : start + RAYS_PER_CHUNK], density) for start in starts])

    @torch.no_grad()
    def _dense_along_few(self, rays: RayBundle, density: Float[Tensor, "points"]) -> Bool[Tensor, "num_rays"]:
        assert rays.nears is not None and rays.fars is not None
        inside = BoxCollider.hit_by(rays)
        left, hit = inside.nonzero()[:, 0], torch.zeros_like(inside)
        length = ((rays.fars - rays.nears)[left, 0]) / self.side
        directions = self.box.local(rays.directions[left]) / self.box.half_sizes
        # Points of the grid along each axis: of the first step [3, left], and from one step to the next.
        first = ((self._unit(rays.origins[left]) + rays.nears[left] * directions + 1) * self._cells).T.contiguous()
        step = (directions * length[:, None] * self._cells).T.contiguous()
        depth = torch.zeros_like(length)
        for numbers in torch.arange(self.side + 1, device=left.device).split(STEPS_AT_ONCE):
            points = self._point(*(first[..., None] + step[..., None] * numbers))
            depth = depth + density[points].sum(dim=-1) * length
            hit[left[depth >= MAX_OPTICAL_DEPTH]] = True
            on = (depth < MAX_OPTICAL_DEPTH).nonzero()[:, 0]
            left, length, depth, first, step = left[on], length[on], depth[on], first[:, on], step[:, on]
        return hit


def side_for(num_rays: int, pixels_per_cell: int) -> int:
    """Points along a grid's side for an image of so many rays, if the image shows the whole box."""
    return min(max(round(num_rays**0.5 / pixels_per_cell), COARSEST), FINEST)
