from dataclasses import replace

import pytest
import torch

from dietnerf_ns.geometry.cameras import is_in_front
from dietnerf_ns.geometry.sphere import fit_sphere
from dietnerf_ns.viewer.orbit import MAX_PHI_DEG, orbit_sphere, start_of_orbit
from tests.helpers.cameras import ring_of_poses


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
