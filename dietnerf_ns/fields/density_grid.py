"""A density at the points of a grid in a box: which rays meet something, and where along them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool3d

from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox

MAX_OPTICAL_DEPTH = 0.01
"""Optical depth that cannot be seen: a ray with less has less accumulation than this."""
OPAQUE_CELL = 1.0
"""Largest optical depth of a cell when samples are placed. With more of it, all samples would be in the first cell with
a dense corner, and the surface may be in the next."""
COARSEST, FINEST = 16, 128
"""Grid points along a side of the grid, for small and for large images."""
POINTS_PER_CHUNK = 2**16

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
        line = torch.linspace(-1, 1, side, device=box.center.device)
        unit = torch.cartesian_prod(line, line, line)
        points = box.center + (unit * box.half_sizes) @ box.axes
        with torch.no_grad():
            densities = torch.cat([density(chunk)[:, 0].float() for chunk in points.split(POINTS_PER_CHUNK)])
        grid = densities.view(1, 1, side, side, side)
        self._highest: Float[Tensor, "points"] = max_pool3d(grid, kernel_size=3, stride=1, padding=1).flatten()
        self._density = grid.clamp(max=OPAQUE_CELL * (side - 1) / (2 * float(box.half_sizes.max())))

    def is_of(self, side: int, state: object) -> bool:
        """Whether a grid with these arguments would be the same."""
        return (self.side, self.state) == (side, state)

    @torch.no_grad()
    def density(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 1"]:
        """Density between the grid points, at world positions in the box, for a proposal sampler.

        A cell is never denser than what lets light through to the next ones, so that samples placed by it surround a
        surface.
        """
        unit = self.box.local(positions - self.box.center) / self.box.half_sizes
        places = unit.flip(-1).view(1, 1, 1, -1, 3)
        return grid_sample(self._density, places, padding_mode="border", align_corners=True).view(
            *positions.shape[:-1], 1
        )

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
        visible = self._highest > MAX_OPTICAL_DEPTH / (2 * float(self.box.half_sizes.norm()))
        return self._dense_along(rays, torch.where(visible, math.inf, 0.0))

    @torch.no_grad()
    def _dense_along(self, rays: RayBundle, density: Float[Tensor, "points"]) -> Bool[Tensor, "num_rays"]:
        """Whether the sum over a ray's points reaches `MAX_OPTICAL_DEPTH`.

        Rays are followed in steps of at most the diagonal of a cell, up to where it does.
        """
        assert rays.nears is not None and rays.fars is not None
        origins, directions = self.box.local(rays.origins - self.box.center), self.box.local(rays.directions)
        cells = (self.side - 1) / 2
        first = ((origins + rays.nears * directions) / self.box.half_sizes + 1) * cells
        length = (rays.fars - rays.nears) / self.side
        step = directions * length / self.box.half_sizes * cells
        depth = torch.zeros_like(length[:, 0])
        left = BoxCollider.hit_by(rays).nonzero()[:, 0]
        for number in range(self.side + 1):
            x, y, z = (first[left] + number * step[left]).round_().clamp_(0, self.side - 1).long().unbind(-1)
            depth[left] += density[(x * self.side + y) * self.side + z] * length[left, 0]
            left = left[depth[left] < MAX_OPTICAL_DEPTH]
        return depth >= MAX_OPTICAL_DEPTH


def side_for(num_rays: int, pixels_per_cell: int) -> int:
    """Points along a grid's side for an image of so many rays, if the image shows the whole box."""
    return min(max(round(num_rays**0.5 / pixels_per_cell), COARSEST), FINEST)
