"""Where a thing can be, by its outlines in the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from scipy.optimize import linprog
from torch import Tensor

from dietnerf_ns.views import is_pinhole


@dataclass(frozen=True)
class VisualHull:
    """What the cones of rays inside several outlines have in common: all x with normals . x >= offsets.

    Of the convex hulls of outlines (Laurentini 1994 takes the outlines themselves): parts of a thing may look like its
    background, and a convex hull forgives a hole.
    """

    normals: Float[Tensor, "planes 3"]
    """In the world, pointing inwards."""
    offsets: Float[Tensor, "planes"]

    def extent(
        self, axes: Float[Tensor, "3 3"], center: Float[Tensor, "3"], half_sizes: Float[Tensor, "3"]
    ) -> Float[Tensor, "2 3"] | None:
        """Smallest and largest coordinate of what lies in the hull and in a box, along the box's axes from its centre.

        Args:
            axes: rows are the directions of the box's sides, of length 1.
            center: of the box.
            half_sizes: of the box along its axes.

        Returns:
            The two corners, or None if hull and box have nothing in common.
        """
        size = half_sizes.max()
        outward = -(self.normals @ axes.T).double().numpy()
        limits = (self.normals @ center - self.offsets).double().numpy() / float(size)
        bounds = [(-float(half), float(half)) for half in half_sizes / size]
        corners = np.zeros((2, 3))
        for axis in range(3):
            for row, sign in enumerate((1, -1)):
                ends = linprog(sign * np.eye(3)[axis], A_ub=outward, b_ub=limits, bounds=bounds)
                if not ends.success:
                    return None
                corners[row, axis] = ends.x[axis]
        return torch.from_numpy(corners).to(half_sizes) * size


def visual_hull(cameras: Cameras, things: Sequence[Bool[Tensor, "height width"]]) -> VisualHull | None:
    """The visual hull of a thing.

    Args:
        cameras: of the photos.
        things: where each photo shows the thing.

    Returns:
        The hull, or None if no photo shows the thing whole or the cameras are not pinhole cameras.
    """
    if not is_pinhole(cameras):
        return None
    outlines = [outline(thing) for thing in things]
    cones = [_cone(cameras[i : i + 1], corners) for i, corners in enumerate(outlines) if corners is not None]
    if not cones:
        return None
    normals, offsets = zip(*cones, strict=True)
    return VisualHull(torch.cat(normals), torch.cat(offsets))


def outline(thing: Bool[Tensor, "height width"]) -> Float[Tensor, "corners 2"] | None:
    """Corners (row, column) of the convex hull of a thing's pixels, in order; None if it is not whole in the photo."""
    if not thing.any() or thing[0].any() or thing[-1].any() or thing[:, 0].any() or thing[:, -1].any():
        return None
    rows = thing.any(dim=1).nonzero()[:, 0]
    first = thing[rows].int().argmax(dim=1)
    last = thing.shape[1] - thing[rows].flip(1).int().argmax(dim=1)
    corners = torch.cat([torch.stack([rows + edge, columns], dim=1) for edge in (0, 1) for columns in (first, last)])
    return torch.from_numpy(cv2.convexHull(corners.numpy().astype(np.int32))[:, 0]).float()


def _cone(
    camera: Cameras, corners: Float[Tensor, "corners 2"]
) -> tuple[Float[Tensor, "corners 3"], Float[Tensor, "corners"]]:
    indices = torch.zeros(len(corners), 1, dtype=torch.long)
    rays = camera.to("cpu").generate_rays(camera_indices=indices, coords=corners)
    normals = torch.linalg.cross(rays.directions, rays.directions.roll(-1, dims=0))
    normals = normals * (normals @ rays.directions.mean(dim=0)).sign()[:, None]
    return normals, normals @ rays.origins[0]
