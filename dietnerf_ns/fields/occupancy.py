"""Which rays may hit something, according to the density in a box: the others need no samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor
from torch.nn.functional import max_pool3d

from dietnerf_ns.fields.object_box import ObjectBox

MAX_OPTICAL_DEPTH = 0.01
"""A ray whose density is everywhere below this, divided by the box's diagonal, has less accumulation than this."""
COARSEST, FINEST = 16, 128
"""Grid points along a side of the grid, for small and for large images."""
POINTS_PER_CHUNK = 2**16

Density = Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 1"]]
"""Density per unit of length at positions in the world frame."""


class OccupancyGrid:
    """Where a density is large enough to be seen, at the points of a regular grid in a box, and beside these points.

    Args:
        box: in the world frame; there is nothing outside it.
        density: is evaluated once at each grid point.
        side: number of grid points along each side of the box.
    """

    def __init__(self, box: ObjectBox, density: Density, side: int):
        self.box = box
        self.side = side
        line = torch.linspace(-1, 1, side, device=box.center.device)
        unit = torch.cartesian_prod(line, line, line)
        points = box.center + (unit * box.half_sizes) @ box.axes
        limit = MAX_OPTICAL_DEPTH / (2 * float(box.half_sizes.norm()))
        with torch.no_grad():
            dense = torch.cat([density(chunk)[:, 0] > limit for chunk in points.split(POINTS_PER_CHUNK)])
        grid = dense.view(1, 1, side, side, side).float()
        self.occupied: Bool[Tensor, "points"] = max_pool3d(grid, kernel_size=3, stride=1, padding=1).flatten() > 0

    @torch.no_grad()
    def hit_by(self, rays: RayBundle) -> Bool[Tensor, "num_rays"]:
        """Whether rays pass through anything that is occupied.

        Rays are followed in steps of at most the diagonal of a cell. Nothing is passed over, because what is occupied
        reaches a cell further than what is dense.

        Args:
            rays: flat, with the `nears` and `fars` of a `BoxCollider` with the same box.
        """
        assert rays.nears is not None and rays.fars is not None
        origins, directions = self.box.local(rays.origins - self.box.center), self.box.local(rays.directions)
        cells = (self.side - 1) / 2
        first = ((origins + rays.nears * directions) / self.box.half_sizes + 1) * cells
        step = directions * (rays.fars - rays.nears) / self.box.half_sizes * cells / self.side
        left = torch.arange(len(rays), device=first.device)
        for number in range(self.side + 1):
            x, y, z = (first[left] + number * step[left]).round_().clamp_(0, self.side - 1).long().unbind(-1)
            left = left[~self.occupied[(x * self.side + y) * self.side + z]]
        return torch.ones(len(rays), dtype=torch.bool, device=first.device).index_fill(0, left, False)


def side_for(num_rays: int) -> int:
    """Points along a grid's side for an image of so many rays: two pixels a cell, if the image shows the whole box."""
    return min(max(round(num_rays**0.5 / 2), COARSEST), FINEST)
