"""Where an object can be, according to its silhouettes in the photos."""

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

# Both in units of a box's longest half side:
TOLERANCE = 0.05
SMALLEST_RADIUS = 1e-4
PLANES_AT_ONCE = 1024
"""Planes of the hull that are compared with all corners at once; hundreds of photos have tens of thousands."""


class InconsistentSilhouettes(ValueError):
    """The silhouettes are not those of one object seen by these cameras."""


@dataclass(frozen=True)
class VisualHull:
    """The intersection of the viewing cones of several silhouettes: all x with normals @ x >= offsets.

    The cones are those of the silhouettes' convex hulls (Laurentini 1994 takes the silhouettes themselves): parts of an
    object may look like its background, and a convex hull tolerates a hole.
    """

    normals: Float[Tensor, "planes 3"]
    """Unit vectors in the world frame that point inwards."""
    offsets: Float[Tensor, "planes"]
    """Scene units."""
    photos: Sequence[str]
    """Name of the photo that each plane comes from."""

    def extent(
        self, axes: Float[Tensor, "3 3"], center: Float[Tensor, "3"], half_sizes: Float[Tensor, "3"]
    ) -> Float[Tensor, "2 3"]:
        """Bounds of the intersection of the hull and a box, along the box's axes and relative to its centre.

        Args:
            axes: rows are the directions of the box's sides, unit vectors in the world frame.
            center: centre of the box in the world frame.
            half_sizes: half the box's extent along each axis, in scene units.

        Returns:
            The smallest and the largest coordinates.

        Raises:
            InconsistentSilhouettes: hull and box do not intersect. Or the intersection stays away from a silhouette's
                edge by more than 5 % of the box's longest half side, even in a box twice as large: with true poses the
                hull of one object touches all sides of every silhouette.
        """
        size = half_sizes.max()
        normals = (self.normals @ axes.T).double().numpy()
        offsets = (self.offsets - self.normals @ center).double().numpy() / float(size)
        sides = (half_sizes / size).double().numpy()
        corners = _corners(normals, offsets, sides)
        larger = _corners(normals, offsets, 2 * sides).T
        parts = np.array_split(normals, 1 + len(normals) // PLANES_AT_ONCE)
        gaps = np.concatenate([(part @ larger).min(axis=1) for part in parts]) - offsets
        if gaps.max() > TOLERANCE:
            raise InconsistentSilhouettes(
                f"The silhouette in {self.photos[int(gaps.argmax())]} does not fit those in the other photos"
            )
        return torch.from_numpy(np.stack([corners.min(axis=0), corners.max(axis=0)])).to(half_sizes) * size


def visual_hull(
    cameras: Cameras, foreground_masks: Sequence[Bool[Tensor, "_height _width"]], names: Sequence[str]
) -> VisualHull | None:
    """The visual hull of the foreground.

    Args:
        cameras: of the photos; camera-to-world matrices with OpenGL axes.
        foreground_masks: one for each photo.
        names: names of the photos.

    Returns:
        The hull, or None if no photo shows the whole object or the cameras are not pinhole cameras.
    """
    if not is_pinhole(cameras):
        return None
    silhouettes = {i: corners for i, mask in enumerate(foreground_masks) if (corners := silhouette(mask)) is not None}
    if not silhouettes:
        return None
    cones = [_viewing_cone(cameras[i : i + 1], corners) for i, corners in silhouettes.items()]
    normals, offsets = zip(*cones, strict=True)
    photos = [names[i] for i, corners in silhouettes.items() for _ in corners]
    return VisualHull(torch.cat(normals), torch.cat(offsets), photos)


def silhouette(foreground: Bool[Tensor, "height width"]) -> Float[Tensor, "corners 2"] | None:
    """Corners (row, column) of the convex hull of a foreground mask, in order.

    Returns:
        Pixel coordinates of pixel corners, or None if the mask is empty or reaches the photo's edge.
    """
    at_edge = foreground[0].any() or foreground[-1].any() or foreground[:, 0].any() or foreground[:, -1].any()
    if at_edge or not foreground.any():
        return None
    rows = foreground.any(dim=1).nonzero()[:, 0]
    first = foreground[rows].int().argmax(dim=1)
    last = foreground.shape[1] - foreground[rows].flip(1).int().argmax(dim=1)
    corners = torch.cat([torch.stack([rows + edge, columns], dim=1) for edge in (0, 1) for columns in (first, last)])
    return torch.from_numpy(cv2.convexHull(corners.numpy().astype(np.int32))[:, 0]).float()


def _corners(
    normals: NDArray[np.float64], offsets: NDArray[np.float64], half_sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Corners [n, 3] of the intersection of half-spaces (normals @ x >= offsets) with a box around the origin."""
    inwards = np.concatenate([normals, np.eye(3), -np.eye(3)])
    limits = np.concatenate([offsets, -half_sizes, -half_sizes])
    # Centre and radius of the largest inscribed ball:
    radius_weight = np.ones((len(inwards), 1))
    ball = linprog([0, 0, 0, -1], A_ub=np.hstack([-inwards, radius_weight]), b_ub=-limits, bounds=[(None, None)] * 4)
    if not ball.success or ball.x[3] < SMALLEST_RADIUS:
        raise InconsistentSilhouettes("The silhouettes in the photos do not intersect")
    return HalfspaceIntersection(np.hstack([-inwards, limits[:, None]]), ball.x[:3]).intersections


def _viewing_cone(
    camera: Cameras, corners: Float[Tensor, "corners 2"]
) -> tuple[Float[Tensor, "corners 3"], Float[Tensor, "corners"]]:
    """Inward unit normals and offsets of the planes through the camera and the edges of a silhouette."""
    indices = torch.zeros(len(corners), 1, dtype=torch.long)
    rays = camera.to("cpu").generate_rays(camera_indices=indices, coords=corners)
    normals = torch.linalg.cross(rays.directions, rays.directions.roll(-1, dims=0))
    normals = normalize(normals * (normals @ rays.directions.mean(dim=0)).sign()[:, None], dim=-1)
    return normals, normals @ rays.origins[0]
