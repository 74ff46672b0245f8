"""Where a thing can be, by its outlines in the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.spatial import HalfspaceIntersection
from torch import Tensor
from torch.nn.functional import normalize

from dietnerf_ns.geometry.cameras import is_pinhole

# Both in half sides of a box, the longest:
TOLERANCE = 0.05
SMALLEST_RADIUS = 1e-4


class InconsistentSilhouettes(ValueError):
    """The outlines are not those of one thing, seen by these cameras."""


@dataclass(frozen=True)
class VisualHull:
    """What the cones of rays inside several outlines have in common: all x with normals . x >= offsets.

    Of the convex hulls of outlines (Laurentini 1994 takes the outlines themselves): parts of a thing may look like its
    background, and a convex hull forgives a hole.
    """

    normals: Float[Tensor, "planes 3"]
    """In the world, pointing inwards, of length 1."""
    offsets: Float[Tensor, "planes"]
    photos: Sequence[str]
    """Name of the photo that each plane is from."""

    def extent(
        self, axes: Float[Tensor, "3 3"], center: Float[Tensor, "3"], half_sizes: Float[Tensor, "3"]
    ) -> Float[Tensor, "2 3"]:
        """Smallest and largest coordinate of what lies in the hull and in a box, along the box's axes from its centre.

        Args:
            axes: rows are the directions of the box's sides, of length 1.
            center: of the box, in the world.
            half_sizes: of the box along its axes.

        Returns:
            The two corners.

        Raises:
            InconsistentSilhouettes: hull and box have nothing in common; or too little to fill an outline, which it
                misses somewhere by more than 5 % of the box's longest half side, even in a box twice as large. Of one
                object with true poses the hull touches all sides of every outline.
        """
        size = half_sizes.max()
        normals = (self.normals @ axes.T).double().numpy()
        offsets = (self.offsets - self.normals @ center).double().numpy() / float(size)
        sides = (half_sizes / size).double().numpy()
        corners = _corners(normals, offsets, sides)
        gaps = (normals @ _corners(normals, offsets, 2 * sides).T).min(axis=1) - offsets
        if gaps.max() > TOLERANCE:
            raise InconsistentSilhouettes(
                f"The outline in {self.photos[gaps.argmax()]} does not fit those in the others"
            )
        return torch.from_numpy(np.stack([corners.min(axis=0), corners.max(axis=0)])).to(half_sizes) * size


def visual_hull(
    cameras: Cameras, things: Sequence[Bool[Tensor, "height width"]], names: Sequence[str]
) -> VisualHull | None:
    """The visual hull of a thing.

    Args:
        cameras: of the photos; camera-to-world matrices with OpenGL axes.
        things: where each photo shows the thing.
        names: of the photos.

    Returns:
        The hull, or None if no photo shows the thing whole or the cameras are not pinhole cameras.
    """
    if not is_pinhole(cameras):
        return None
    outlines = {i: corners for i, thing in enumerate(things) if (corners := outline(thing)) is not None}
    if not outlines:
        return None
    normals, offsets = zip(*(_cone(cameras[i : i + 1], corners) for i, corners in outlines.items()), strict=True)
    planes = [names[i] for i, corners in outlines.items() for _ in corners]
    return VisualHull(torch.cat(normals), torch.cat(offsets), planes)


def outline(thing: Bool[Tensor, "height width"]) -> Float[Tensor, "corners 2"] | None:
    """Corners (row, column) of the convex hull of a thing's pixels, in order; None if it is not whole in the photo."""
    if not thing.any() or thing[0].any() or thing[-1].any() or thing[:, 0].any() or thing[:, -1].any():
        return None
    rows = thing.any(dim=1).nonzero()[:, 0]
    first = thing[rows].int().argmax(dim=1)
    last = thing.shape[1] - thing[rows].flip(1).int().argmax(dim=1)
    corners = torch.cat([torch.stack([rows + edge, columns], dim=1) for edge in (0, 1) for columns in (first, last)])
    return torch.from_numpy(cv2.convexHull(corners.numpy().astype(np.int32))[:, 0]).float()


def _corners(
    normals: NDArray[np.float64], offsets: NDArray[np.float64], half_sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Corners [n, 3] of what lies on the inner side of all planes and in a box around the origin."""
    inwards = np.concatenate([normals, np.eye(3), -np.eye(3)])
    limits = np.concatenate([offsets, -half_sizes, -half_sizes])
    # The centre and the radius of the largest ball inside:
    radius_weight = np.ones((len(inwards), 1))
    ball = linprog([0, 0, 0, -1], A_ub=np.hstack([-inwards, radius_weight]), b_ub=-limits, bounds=[(None, None)] * 4)
    if not ball.success or ball.x[3] < SMALLEST_RADIUS:
        raise InconsistentSilhouettes("The outlines in the photos have no place in common")
    return HalfspaceIntersection(np.hstack([-inwards, limits[:, None]]), ball.x[:3]).intersections


def _cone(
    camera: Cameras, corners: Float[Tensor, "corners 2"]
) -> tuple[Float[Tensor, "corners 3"], Float[Tensor, "corners"]]:
    indices = torch.zeros(len(corners), 1, dtype=torch.long)
    rays = camera.to("cpu").generate_rays(camera_indices=indices, coords=corners)
    normals = torch.linalg.cross(rays.directions, rays.directions.roll(-1, dims=0))
    normals = normalize(normals * (normals @ rays.directions.mean(dim=0)).sign()[:, None], dim=-1)
    return normals, normals @ rays.origins[0]
