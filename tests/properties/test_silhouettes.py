"""Foreground, silhouettes and the box that they leave to an object."""

import cv2
import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dietnerf_ns.data.foreground import border_color, foreground_mask
from dietnerf_ns.geometry.sphere import pose_at
from dietnerf_ns.geometry.visual_hull import silhouette, visual_hull
from tests.helpers.cameras import pinhole_cameras
from tests.properties.strategies import floats, seeds

SIDE, FOCAL, DISTANCE, HALF_BOX = 200, 220.0, 4.0, 1.6
UP = torch.tensor([0.0, 0.0, 1.0])


@st.composite
def objects(draw):
    """Points of a convex object: in a box of random proportions that is turned and shifted a little."""
    generator = torch.Generator().manual_seed(draw(seeds))
    extent = torch.tensor([draw(floats(0.3, 0.8)) for _ in range(3)])
    points = (torch.rand(30, 3, generator=generator) * 2 - 1) * extent
    return points + 0.2 * torch.rand(3, generator=generator)


@st.composite
def rings(draw):
    """Cameras around the origin: 3 to 6, at an angle to each other, each at its own elevation."""
    count, start = draw(st.integers(3, 6)), draw(floats(0, 120))
    elevations = draw(st.lists(floats(-50, 50), min_size=count, max_size=count))
    poses = [
        pose_at(
            torch.zeros(3),
            UP,
            azimuth=torch.tensor(start + 360.0 * i / count),
            elevation=torch.tensor(float(elevation)),
            radius=torch.tensor(DISTANCE),
        )
        for i, elevation in enumerate(elevations)
    ]
    return pinhole_cameras(torch.stack(poses), width=SIDE, height=SIDE, focal=FOCAL)


def photographed(points: torch.Tensor, cameras) -> list[torch.Tensor]:
    """Masks of all pixels that the convex object touches, at most one pixel larger."""
    masks = []
    for pose in cameras.camera_to_worlds:
        local = (points - pose[:, 3]) @ pose[:, :3]
        places = FOCAL * local[:, :2] / -local[:, 2:] * torch.tensor([1.0, -1.0]) + SIDE / 2
        corners = cv2.convexHull(np.floor(places.numpy()).astype(np.int32))
        canvas = cv2.fillConvexPoly(np.zeros((SIDE, SIDE), np.uint8), corners, 1)
        masks.append(torch.from_numpy(cv2.dilate(canvas, np.ones((3, 3), np.uint8))).bool())
    return masks


def box_of(cameras, masks):
    hull = visual_hull(cameras, masks, [str(i) for i in range(len(masks))])
    assume(hull is not None)
    return hull.extent(torch.eye(3), torch.zeros(3), torch.full((3,), HALF_BOX))


@given(objects(), rings())
def test_the_box_holds_an_object_that_all_photos_show(points, cameras):
    """The intersection of the viewing cones contains every point of a convex object, so the box around it does, and it
    lies in the box that was searched."""
    low, high = box_of(cameras, photographed(points, cameras))
    assert (points >= low - 1e-3).all() and (points <= high + 1e-3).all()
    assert (low >= -HALF_BOX - 1e-4).all() and (high <= HALF_BOX + 1e-4).all()


@given(objects(), rings())
def test_another_photo_never_enlarges_the_box(points, cameras):
    """A further silhouette only takes space away."""
    masks = photographed(points, cameras)
    few, all_of_them = box_of(cameras[: len(masks) - 1], masks[:-1]), box_of(cameras, masks)
    assert (all_of_them[0] >= few[0] - 1e-3).all() and (all_of_them[1] <= few[1] + 1e-3).all()


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_a_silhouette_contains_its_foreground(mask):
    """The corners are those of a convex polygon around all pixels of the foreground, and lie at corners of its pixels.
    A foreground that reaches the photo's edge, or is empty, has none."""
    corners = silhouette(torch.from_numpy(mask))
    inner = mask.copy()
    inner[1:-1, 1:-1] = False
    assert (corners is None) == (inner.any() or not mask.any())
    if corners is not None:
        polygon = corners.numpy().astype(np.int32)
        for row, column in np.argwhere(mask):
            for place in ((row, column), (row + 1, column), (row, column + 1), (row + 1, column + 1)):
                assert cv2.pointPolygonTest(polygon, tuple(map(float, place)), measureDist=False) >= 0
        rows, columns = np.nonzero(mask)
        assert corners.amin(0).tolist() == [rows.min(), columns.min()]
        assert corners.amax(0).tolist() == [rows.max() + 1, columns.max() + 1]


@given(st.tuples(*[floats(0, 1)] * 3), hnp.arrays(bool, (6, 7)), floats(0.1, 1))
def test_the_foreground_is_what_differs_from_the_background(background, mask, difference):
    """In an opaque photo, pixels of the background's colour are background and those that differ from it by more than
    0.05 in a channel are foreground; where a photo has transparent pixels these alone are the background."""
    colour = torch.tensor(background)
    other = torch.where(colour + difference <= 1, colour + difference, (colour - difference).clamp_min(0))
    assume(bool(((other - colour).abs() > 0.051).any()))
    expected = torch.from_numpy(mask)
    photo = torch.where(expected[..., None], other, colour)
    assert torch.equal(foreground_mask(photo, colour), expected)
    rgba = torch.cat([other.expand(6, 7, 3), expected[..., None].float()], dim=-1)
    if not expected.all():
        assert torch.equal(foreground_mask(rgba, colour), expected)


@given(st.tuples(*[floats(0, 1)] * 3), seeds)
def test_the_background_is_the_colour_of_the_borders(background, seed):
    """Photos whose borders have one colour have it as their background, whatever they show inside."""
    colour = torch.tensor(background)
    photos = torch.rand(3, 8, 9, 3, generator=torch.Generator().manual_seed(seed))
    for edge in (photos[:, 0], photos[:, -1], photos[:, :, 0], photos[:, :, -1]):
        edge[:] = colour
    assert torch.allclose(border_color(photos), colour)
