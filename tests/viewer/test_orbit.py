import math
import threading
from dataclasses import replace

import pytest
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset

from dietnerf_ns.geometry.cameras import is_in_front
from dietnerf_ns.geometry.sphere import fit_sphere
from dietnerf_ns.viewer.browser_cameras import BrowserCameras
from dietnerf_ns.viewer.orbit import MAX_PHI_DEG, OrbitFolder, orbit_sphere, start_of_orbit
from tests.helpers.cameras import ring_of_poses
from tests.helpers.scenes import blender_outputs


def test_orbit_centre_is_the_point_that_the_cameras_look_at():
    sphere = orbit_sphere(ring_of_poses(6, center=(0.3, -0.2, 0.7)))
    assert torch.allclose(sphere.center, torch.tensor([0.3, -0.2, 0.7]), atol=1e-4)


def test_orbit_centre_is_in_front_of_cameras_that_look_apart():
    outwards = ring_of_poses(36, elevation=0.0, radius=0.5)[:3]
    outwards[:, :, [0, 2]] *= -1  # a half turn about each camera's own up axis
    assert not is_in_front(fit_sphere(outwards).center, outwards)
    assert is_in_front(orbit_sphere(outwards).center, outwards)


@pytest.mark.parametrize("elevation, phi", [(30.0, 30.0), (89.9, MAX_PHI_DEG)])
def test_orbit_starts_at_the_first_training_camera(elevation, phi):
    poses = ring_of_poses(4, elevation=elevation, radius=4.0)[[1, 0, 2, 3]]
    sphere = replace(fit_sphere(poses), center=torch.zeros(3))  # optical axes that are nearly parallel fit inexactly
    assert start_of_orbit(poses, sphere) == pytest.approx((90.0, phi, 4.0), abs=1e-3)


def test_orbit_of_cameras_that_look_all_around_from_one_place_starts_at_the_first_of_them():
    panorama = ring_of_poses(4, elevation=0.0)
    panorama[:, :, 3] = 0
    sphere = orbit_sphere(panorama)
    theta, phi, radius = start_of_orbit(panorama, sphere)
    assert radius == pytest.approx(1) and math.isfinite(theta) and phi == 0
    assert torch.allclose(sphere.center, -panorama[0, :, 2])


class Recorder(BrowserCameras):
    """One connected browser, of which the poses are kept."""

    def __init__(self):
        super().__init__()
        self.poses = []

    def connected(self):
        return [None]

    def look(self, camera_to_world, **_):
        self.poses.append(camera_to_world)


class OnePeriod(threading.Event):
    """Tells a turntable to stop after one period, at whose end something else happens."""

    def __init__(self, happens):
        super().__init__()
        self.happens = [happens]

    def wait(self, timeout=None):
        if not self.happens:
            return True
        self.happens.pop()()
        return False


@pytest.fixture
def orbit(tiny_scene):
    browsers = Recorder()
    return OrbitFolder(InputDataset(blender_outputs(tiny_scene)), browsers), browsers.poses


def test_the_turntable_does_not_turn_after_going_to_a_training_view(orbit):
    folder, poses = orbit
    theta = folder._theta.value
    folder._stop_turning = OnePeriod(lambda: folder._go_to_view(None))
    folder._turn(folder._stop_turning)
    assert folder._theta.value == theta and len(poses) == 1


def test_the_callback_of_a_turn_does_not_leave_a_training_view(orbit):
    folder, poses = orbit
    folder._turn(OnePeriod(lambda: None))
    assert len(poses) == 1
    folder._go_to_view(None)
    folder._move(None)  # which setting the slider started
    assert len(poses) == 2 and torch.equal(poses[-1], folder._cameras[0].camera_to_worlds)
    folder._theta.value += 1
    folder._move(None)
    assert len(poses) == 3


def test_only_one_turntable_turns_and_it_can_be_stopped(orbit):
    folder, _ = orbit
    folder._turntable.value = True
    other = threading.Thread(target=folder._start_or_stop, args=(None,))

    class Interrupted(threading.Event):
        def set(self):
            if other.ident is None:
                other.start()
                other.join(0.2)

    before = set(threading.enumerate())
    folder._stop_turning = Interrupted()
    folder._start_or_stop(None)
    other.join()
    folder._turntable.value = False
    folder._start_or_stop(None)
    for thread in set(threading.enumerate()) - before:
        thread.join(2)
        assert not thread.is_alive()
