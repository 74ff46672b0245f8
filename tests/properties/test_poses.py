"""Poses of semantic views."""

import torch
from hypothesis import given
from torch.nn.functional import normalize

from dietnerf_ns.geometry.sphere import spherical_coordinates
from dietnerf_ns.semantic.poses import interpolated_pose, pose_on_sphere, pose_sampler
from tests.properties.strategies import generators, is_rotation, looking_poses, spheres


@given(spheres(), generators())
def test_a_pose_on_a_sphere_lies_in_its_ranges(sphere, generator):
    """Azimuth (modulo a turn), elevation and radius of a drawn camera lie in the ranges of the sphere."""
    pose = pose_on_sphere(sphere, generator)
    azimuth, elevation, radius = (float(x) for x in spherical_coordinates(pose[None], sphere.center, sphere.up))
    (first, last), tolerance = sphere.azimuth_range, 0.1
    assert (azimuth - first + tolerance) % 360 <= last - first + 2 * tolerance
    assert sphere.elevation_range[0] - tolerance <= elevation <= sphere.elevation_range[1] + tolerance
    assert sphere.radius_range[0] - 1e-3 <= radius <= sphere.radius_range[1] + 1e-3


@given(spheres(), generators())
def test_a_pose_on_a_sphere_looks_at_its_centre_and_is_level(sphere, generator):
    """The camera looks along -z, exactly at the centre; its right axis is horizontal and its up axis points upwards;
    its axes are orthonormal and right-handed."""
    pose = pose_on_sphere(sphere, generator)
    assert is_rotation(pose[:, :3])
    assert torch.allclose(-pose[:, 2], normalize(sphere.center - pose[:, 3], dim=0), atol=1e-3)
    assert abs(float(pose[:, 0] @ sphere.up)) < 1e-4
    assert float(pose[:, 1] @ sphere.up) > 0


@given(looking_poses(min_size=1), generators())
def test_an_interpolated_pose_lies_between_the_cameras(poses, generator):
    """Its position is a convex combination of theirs, so no coordinate leaves their range; its axes are orthonormal and
    right-handed."""
    pose = interpolated_pose(poses, generator)
    assert is_rotation(pose[:, :3])
    positions = poses[:, :, 3]
    assert (pose[:, 3] >= positions.amin(0) - 1e-4).all() and (pose[:, 3] <= positions.amax(0) + 1e-4).all()


@given(looking_poses(min_size=1, max_size=1), generators())
def test_between_equal_cameras_there_is_only_that_camera(poses, generator):
    """Interpolating copies of one camera gives that camera."""
    assert torch.allclose(interpolated_pose(poses.repeat(4, 1, 1), generator), poses[0], atol=1e-4)


@given(looking_poses(min_size=3), generators())
def test_the_same_random_numbers_give_the_same_pose(poses, generator):
    """A sampler depends on nothing but the cameras and the generator: bit for bit the same one, and another one up to
    the rounding of the least squares that it is fitted with, which depends on where its matrices lie in memory."""
    state = generator.get_state()
    for kind in ("sphere", "interpolate"):
        sampler, draws = pose_sampler(poses, kind), []
        for draw in (sampler, sampler, pose_sampler(poses, kind)):
            generator.set_state(state)
            draws.append(draw(generator))
        assert torch.equal(draws[0], draws[1])
        assert torch.allclose(draws[0], draws[2], atol=1e-4)
