"""How far the poses of a reconstruction agree with the matches, and which poses can therefore be wrong."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from dietnerf_ns.poses.matching import Matches

FEWEST_POINTS = 20
"""That a photo must see. With 12, photos of a statuette from opposite sides were connected by wrong matches."""
EXPLAINED_PIXELS = 2.0
"""Distance from its epipolar line up to which poses explain a match."""
FEWEST_EXPLAINED, LEAST_EXPLAINED = 60, 0.65
"""Number and share of a photo's verified matches that its pose must explain. In two captures, photos with 32 matches
were 42 degrees wrong (matched with the other side of the object), one with 48 was 3.7 degrees wrong, and one of whose
matches 55 % were explained was 35 degrees wrong. With at least 84 and 71 % none was more than 2.3 degrees wrong. In
a group of photos, one must have as many matches with the photos outside: two neighbours can be wrong together."""


@dataclass(frozen=True)
class Support:
    """How far the poses of a reconstruction agree with the matches."""

    names: list[str]
    """The posed photos."""
    points: Int[np.ndarray, "n"]
    """Number of points that each photo sees."""
    explained: Int[np.ndarray, "n n"]
    """Numbers of verified matches of every two photos that lie within 2 pixels of their epipolar lines."""
    verified: Int[np.ndarray, "n n"]
    """Numbers of all verified matches of every two photos."""

    @property
    def total(self) -> int:
        """Number of all explained matches."""
        return int(self.explained.sum()) // 2

    def doubtful(self) -> list[str]:
        """The photos whose poses are most likely wrong: one, or a group that has hardly to do with the others.

        Empty if all poses are supported.
        """
        explained = self.explained.sum(axis=1)
        shares = explained / self.verified.sum(axis=1).clip(1)
        few = (self.points < FEWEST_POINTS) | (explained < FEWEST_EXPLAINED)
        weak = np.flatnonzero(few | (shares < LEAST_EXPLAINED))
        if len(weak):
            return [self.names[min(weak, key=lambda index: (shares[index], explained[index]))]]
        count, group_of = connected_components(self.explained >= FEWEST_EXPLAINED, directed=False)
        groups = sorted((np.flatnonzero(group_of == group) for group in range(count)), key=len)
        for group in groups[:-1]:
            outside = np.delete(self.explained[group], group, axis=1).sum(axis=1)
            if outside.max(initial=0) < FEWEST_EXPLAINED:
                return [self.names[index] for index in group]
        return []


def leave_out_doubtful(model: pycolmap.Reconstruction, matches: Matches) -> None:
    """Take photos out of a reconstruction whose matches do not support their poses, the most doubtful first."""
    while doubtful := support(model, matches).doubtful():
        for image in [image for image in model.images.values() if image.name in doubtful]:
            model.deregister_frame(image.frame_id)
    model.tear_down()  # photos without a pose make COLMAP's covariances fail


def support(model: pycolmap.Reconstruction, matches: Matches) -> Support:
    """How far the poses of a reconstruction agree with the verified matches.

    Distances from epipolar lines are Sampson errors (Hartley and Zisserman, 2nd edition, equation 11.9).
    """
    posed = [image for image in model.images.values() if image.has_pose]
    explained, verified = np.zeros((2, len(posed), len(posed)), dtype=int)
    with pycolmap.Database.open(matches.database) as opened:
        for (i, first), (j, second) in itertools.combinations(enumerate(posed), 2):
            errors = _sampson_errors(opened, first, second)
            verified[i, j] = verified[j, i] = len(errors)
            explained[i, j] = explained[j, i] = (errors < EXPLAINED_PIXELS).sum()
    return Support(
        [image.name for image in posed], np.array([image.num_points3D for image in posed], int), explained, verified
    )


def _sampson_errors(
    database: pycolmap.Database, first: pycolmap.Image, second: pycolmap.Image
) -> Float[np.ndarray, "matches"]:
    """Of the verified matches of two posed photos, in pixels."""
    pairs = database.read_two_view_geometry(first.image_id, second.image_id).inlier_matches
    if len(pairs) == 0:
        return np.zeros(0)
    relative = second.cam_from_world() * first.cam_from_world().inverse()
    rays: list[np.ndarray] = []
    focal_lengths: list[float] = []
    for image, rows in zip((first, second), pairs.T, strict=True):
        assert image.camera is not None, "a photo of a reconstruction has a camera"
        pixels = database.read_keypoints(image.image_id)[rows, :2].astype(np.float64)
        rays.append(image.camera.cam_from_img(pixels))
        focal_lengths.append(image.camera.focal_length)
    essential = pycolmap.essential_matrix_from_pose(relative)
    return np.sqrt(pycolmap.compute_squared_sampson_error(rays[0], rays[1], essential)) * math.sqrt(
        math.prod(focal_lengths)
    )
