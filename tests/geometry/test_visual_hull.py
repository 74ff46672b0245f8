import cv2
import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.datasets.base_dataset import InputDataset

from dietnerf_ns.data.foreground import foreground_masks
from dietnerf_ns.geometry.visual_hull import InconsistentSilhouettes, VisualHull, silhouette, visual_hull
from tests.helpers.cameras import pinhole_cameras, ring_of_poses

AXES, CENTER, HALF = torch.eye(3), torch.zeros(3), torch.full((3,), 2.0)


class PhotosOfABox(InputDataset):
    """No files: photos of a dark box on white, drawn by projecting its corners."""

    def __init__(self, low, high):
        grid = torch.meshgrid(*torch.stack([low, high]).T, indexing="ij")
        self.corners = torch.stack(grid, dim=-1).reshape(-1, 3)
        self.cameras = pinhole_cameras(ring_of_poses(8), width=400, height=300, focal=350.0)

    def __len__(self):
        return len(self.cameras)

    def get_numpy_image(self, index):
        camera = self.cameras[index]
        pose = camera.camera_to_worlds
        x, y, z = ((self.corners - pose[:, 3]) @ pose[:, :3]).T
        pixels = torch.stack([350 * x / -z + 200 - 0.5, -350 * y / -z + 150 - 0.5], dim=-1)
        image = np.full((300, 400, 3), 255, dtype=np.uint8)
        hull = cv2.convexHull(pixels.round().numpy().astype(np.int32))
        return cv2.fillConvexPoly(image, hull, (50, 70, 100))


NAMES = [f"{letter}.png" for letter in "abcdefgh"]


def hull_of(photos):
    return visual_hull(photos.cameras, foreground_masks(photos, torch.ones(3)), NAMES)


def test_the_hull_of_a_box_has_about_its_extent():
    low, high = torch.tensor([-0.5, -0.3, -0.6]), torch.tensor([0.4, 0.7, 0.5])
    hull = hull_of(PhotosOfABox(low, high))
    found = hull.extent(AXES, CENTER, HALF)
    assert (found[0] <= low + 0.01).all() and (found[1] >= high - 0.01).all(), "nothing is cut off"
    assert torch.allclose(found[:, :2], torch.stack([low, high])[:, :2], atol=0.12)
    assert torch.allclose(found[:, 2], torch.stack([low, high])[:, 2], atol=0.4), "no photo is taken from the side"


def test_many_planes_are_looked_at_in_parts(monkeypatch):
    hull = hull_of(PhotosOfABox(torch.tensor([-0.5, -0.3, -0.6]), torch.tensor([0.4, 0.7, 0.5])))
    at_once = hull.extent(AXES, CENTER, HALF)
    monkeypatch.setattr("dietnerf_ns.geometry.visual_hull.PLANES_AT_ONCE", 3)
    assert torch.equal(hull.extent(AXES, CENTER, HALF), at_once)


@pytest.mark.parametrize("degrees", [15, 60])
def test_a_wrong_pose_is_noticed(degrees):
    photos = PhotosOfABox(torch.tensor([-0.5, -0.3, -0.6]), torch.tensor([0.4, 0.7, 0.5]))
    seen = foreground_masks(photos, torch.ones(3))
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    photos.cameras.camera_to_worlds[2] = turn @ photos.cameras.camera_to_worlds[2]
    with pytest.raises(InconsistentSilhouettes, match=r"silhouette in [a-h]\.png does not fit"):
        visual_hull(photos.cameras, seen, NAMES).extent(AXES, CENTER, HALF)


def test_a_silhouette_of_more_than_the_object_is_named():
    photos = PhotosOfABox(torch.tensor([-0.5, -0.3, -0.6]), torch.tensor([0.4, 0.7, 0.5]))
    seen = foreground_masks(photos, torch.ones(3))
    seen[5][20:24, 30:34] = True
    with pytest.raises(InconsistentSilhouettes, match=r"silhouette in f\.png does not fit"):
        visual_hull(photos.cameras, seen, NAMES).extent(AXES, CENTER, HALF)


def test_the_extent_is_along_the_axes_asked_for_and_within_the_box():
    hull = VisualHull(torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]]) / 2**0.5, torch.tensor([0.0, -1.0]), NAMES[:2])
    diagonal = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 2**0.5]]) / 2**0.5
    extent = hull.extent(diagonal, torch.tensor([0.1, 0.1, 0.0]), torch.tensor([2.0, 3.0, 4.0]))
    shift = 0.1 * 2**0.5
    assert torch.allclose(extent, torch.tensor([[-shift, -3.0, -4.0], [1 - shift, 3.0, 4.0]]), atol=1e-5)
    with pytest.raises(InconsistentSilhouettes, match="do not intersect"):
        hull.extent(AXES, torch.tensor([9.0, 9.0, 0.0]), HALF)


def test_a_silhouette_is_convex_and_needs_the_whole_object():
    foreground = torch.zeros(20, 30, dtype=torch.bool)
    assert silhouette(foreground) is None
    foreground[5:10, 7:12] = foreground[12, 20] = True
    foreground[6:9, 8:11] = False  # a hole
    corners = {tuple(corner) for corner in silhouette(foreground).tolist()}
    assert corners == {(5, 7), (5, 12), (10, 7), (12, 21), (13, 20), (13, 21)}
    foreground[4, -1] = True
    assert silhouette(foreground) is None


def test_photos_without_a_whole_object_have_no_hull():
    cut_off = PhotosOfABox(torch.full((3,), -2.0), torch.full((3,), 2.0))
    assert hull_of(cut_off) is None
    fisheye = PhotosOfABox(torch.full((3,), -0.5), torch.full((3,), 0.5))
    fisheye.cameras.camera_type = torch.full_like(fisheye.cameras.camera_type, CameraType.FISHEYE.value)
    assert hull_of(fisheye) is None
