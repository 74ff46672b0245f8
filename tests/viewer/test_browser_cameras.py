import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import viser.transforms as vtf

from dietnerf_ns.viewer.browser_cameras import BrowserCameras, vertical_fov, viser_pose
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.viewer import CameraOnlyClient

VISER_UNITS_PER_SCENE_UNIT = 10
UP = torch.tensor([0.0, 0.0, 1.0])


def with_browsers(browsers):
    browser_cameras = BrowserCameras()
    browser_cameras.viser_server = SimpleNamespace(get_clients=lambda: dict(enumerate(browsers)))
    return browser_cameras


def test_without_a_viewer_no_browser_is_moved():
    browser_cameras = BrowserCameras()
    assert not browser_cameras.in_viewer and browser_cameras.connected() == []
    browser_cameras.look(ring_of_poses(1)[0], up=UP, distance=1.0)


def test_all_browsers_look_at_the_same_point():
    browsers = [CameraOnlyClient(), CameraOnlyClient()]
    pose = ring_of_poses(1, center=(1.0, 2.0, 3.0), radius=4.0)[0]
    with_browsers(browsers).look(pose, up=UP, distance=4.0, fov=0.7)
    for browser in browsers:
        assert np.allclose(browser.camera.position, VISER_UNITS_PER_SCENE_UNIT * pose[:, 3].numpy(), atol=1e-5)
        assert np.allclose(browser.camera.look_at, VISER_UNITS_PER_SCENE_UNIT * np.array([1, 2, 3]), atol=1e-4)
        assert browser.camera.fov == 0.7


def test_field_of_view_is_kept_unless_it_is_given():
    browser = CameraOnlyClient()
    with_browsers([browser]).look(ring_of_poses(1)[0], up=UP, distance=4.0)
    assert browser.camera.fov == 1.0


def test_viser_pose_has_opencv_axes():
    pose = ring_of_poses(5)[2]
    wxyz, position = viser_pose(pose)
    axes = torch.tensor(vtf.SO3(wxyz).as_matrix())
    assert torch.allclose(axes, pose[:, :3].double() * torch.tensor([1.0, -1.0, -1.0]), atol=1e-6)
    assert np.allclose(position, VISER_UNITS_PER_SCENE_UNIT * pose[:, 3].numpy(), atol=1e-5)


def test_vertical_field_of_view_follows_from_height_and_focal_length():
    camera = pinhole_cameras(ring_of_poses(1), width=40, height=30, focal=15.0)
    assert vertical_fov(camera[0]) == pytest.approx(math.pi / 2), "2 atan(15 / 15)"
