import math

import pytest
import torch

from dietnerf_ns.geometry.cameras import cameras_surround_scene, nearest_point_to_axes, up_vector
from dietnerf_ns.geometry.sphere import Sphere, fit_sphere
from dietnerf_ns.semantic.poses import interpolated_pose, pose_on_sphere, pose_sampler
from tests.helpers.cameras import CENTER, arc_of_poses, ring_of_poses

UP = torch.tensor([0.0, 0.0, 1.0])


def sample(make_pose, count=4000):
    generator = torch.Generator().manual_seed(0)
    return torch.stack([make_pose(generator) for _ in range(count)])


def is_rotation(matrices):
    orthonormal = torch.allclose(matrices @ matrices.mT, torch.eye(3).expand_as(matrices), atol=1e-5)
    return orthonormal and torch.allclose(torch.linalg.det(matrices), torch.ones(len(matrices)), atol=1e-5)


def front_facing_poses(count=6):
    """Cameras side by side in the plane z = 0, all looking along -z."""
    poses = torch.eye(4)[:3].repeat(count, 1, 1)
    poses[:, 0, 3] = torch.linspace(-1, 1, count)
    poses[:, 1, 3] = torch.linspace(-0.3, 0.3, count)
    return poses


def test_sphere_poses_are_uniform_in_azimuth_elevation_and_radius():
    sphere = Sphere(torch.tensor([1.0, -2.0, 0.5]), UP, (3.5, 4.5), (0.0, 90.0), (-180.0, 180.0))
    poses = sample(lambda generator: pose_on_sphere(sphere, generator))
    offsets = poses[:, :, 3] - sphere.center
    radius = offsets.norm(dim=-1)
    elevation = torch.rad2deg(torch.asin(offsets[:, 2] / radius))
    azimuth = torch.rad2deg(torch.atan2(offsets[:, 1], offsets[:, 0]))
    for values, (low, high) in ((radius, (3.5, 4.5)), (elevation, (0, 90)), (azimuth, (-180, 180))):
        width = high - low
        assert values.min() >= low - 1e-3 and values.max() <= high + 1e-3
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * width)
        assert values.std() == pytest.approx(width / math.sqrt(12), rel=0.05)


def test_sphere_poses_look_at_the_centre_with_the_horizon_level():
    sphere = Sphere(torch.tensor([1.0, -2.0, 0.5]), UP, (2.0, 3.0), (-80.0, 80.0))
    poses = sample(lambda generator: pose_on_sphere(sphere, generator), count=200)
    assert is_rotation(poses[:, :, :3])
    to_center = torch.nn.functional.normalize(sphere.center - poses[:, :, 3], dim=-1)
    assert torch.allclose(-poses[:, :, 2], to_center, atol=1e-5)
    assert poses[:, 2, 0].abs().max() < 1e-5, "right axes are horizontal"
    assert (poses[:, 2, 1] > 0).all(), "up axes point upwards"


def test_the_paper_s_pose_at_theta_0_phi_30():
    """Above +x at 30 degrees and radius 4, looking at the origin."""
    sphere = Sphere(torch.zeros(3), UP, (4.0, 4.0), (30.0, 30.0), (0.0, 0.0))
    pose = pose_on_sphere(sphere, torch.Generator())
    expected_position = torch.tensor([4 * math.cos(math.pi / 6), 0.0, 2.0])
    assert torch.allclose(pose[:, 3], expected_position, atol=1e-5)
    assert torch.allclose(pose[:, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_fit_recovers_centre_up_radius_and_elevation():
    center = (0.3, -0.2, 0.7)
    poses = torch.cat(
        [
            ring_of_poses(5, center=center, elevation=20, radius=3),
            ring_of_poses(4, center=center, elevation=50, radius=5),
        ]
    )
    sphere = fit_sphere(poses)
    assert torch.allclose(sphere.center, torch.tensor(center), atol=1e-4)
    assert torch.allclose(sphere.up, UP, atol=1e-5)
    assert sphere.radius_range == pytest.approx((3, 5), abs=1e-3)
    assert sphere.elevation_range == pytest.approx((20, 50), abs=1e-2)
    assert sphere.azimuth_range == (-180, 180)


def test_fit_turns_with_the_world():
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))
    turn = turn * torch.linalg.det(turn).sign()
    poses = ring_of_poses(6, center=(0.1, 0.0, 0.2))
    turned = fit_sphere(turn @ poses)
    assert torch.allclose(turned.up, turn @ UP, atol=1e-4)
    assert torch.allclose(turned.center, turn @ torch.tensor([0.1, 0.0, 0.2]), atol=1e-4)


def test_up_of_cameras_side_by_side_is_their_own():
    assert torch.allclose(up_vector(front_facing_poses()), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
    assert torch.allclose(up_vector(front_facing_poses(1)), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_centre_is_the_least_squares_point():
    poses = ring_of_poses(7, center=(0.5, 0.5, 0.0), elevation=10)
    poses = poses + 0.05 * torch.randn(poses.shape, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [0, 0, 0, 1.0]
    )

    def cost(point):
        offset = point - poses[:, :, 3]
        along = (offset * -poses[:, :, 2]).sum(-1)
        return (offset.square().sum(-1) - along.square()).sum()

    best = nearest_point_to_axes(poses)
    for axis in torch.eye(3):
        assert cost(best) <= cost(best + 1e-2 * axis) and cost(best) <= cost(best - 1e-2 * axis)


@pytest.mark.parametrize("apart", [178.0, 180.0])
@pytest.mark.parametrize("seed", range(10))
def test_two_cameras_that_face_each_other_have_their_centre_between_them(seed, apart):
    """Their axes hardly say where it is along them, and the cameras are aimed a degree past it."""
    poses = arc_of_poses([0.0, apart], radius=4.0, elevation=0.0)
    angle = 0.02 * torch.randn(2, 2, generator=torch.Generator().manual_seed(seed))
    right, up, back = poses[:, :, 0], poses[:, :, 1], poses[:, :, 2]
    aimed = torch.nn.functional.normalize(back + angle[:, :1] * right + angle[:, 1:] * up, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, aimed), dim=-1)
    poses = torch.stack([right, torch.linalg.cross(aimed, right), aimed, poses[:, :, 3]], dim=-1)
    assert float((nearest_point_to_axes(poses) - CENTER).norm()) < 0.6
    assert cameras_surround_scene(poses)


def test_auto_tells_objects_from_walls_and_rooms():
    assert cameras_surround_scene(ring_of_poses(8))
    assert not cameras_surround_scene(front_facing_poses())
    outwards = ring_of_poses(8)
    outwards[:, :, [0, 2]] *= -1  # turned about its own up axis: the same places, looking away
    assert not cameras_surround_scene(outwards)


def test_interpolated_poses_stay_between_the_cameras():
    poses = front_facing_poses()
    poses[:3, :, :3] = ring_of_poses(3, elevation=0)[0, :, :3]
    sampled = sample(lambda generator: interpolated_pose(poses, generator), count=500)
    assert is_rotation(sampled[:, :, :3])
    low, high = poses[:, :, 3].min(0).values, poses[:, :, 3].max(0).values
    assert (sampled[:, :, 3] >= low - 1e-5).all() and (sampled[:, :, 3] <= high + 1e-5).all()
    assert torch.allclose(sampled[:, :, 3].mean(0), poses[:, :, 3].mean(0), atol=0.05)


def test_interpolation_of_equal_poses_is_that_pose():
    pose = ring_of_poses(3)[1]
    assert torch.allclose(interpolated_pose(pose.repeat(3, 1, 1), torch.Generator()), pose, atol=1e-5)


def test_interpolation_takes_up_to_three_and_makes_do_with_fewer():
    poses = front_facing_poses(2)
    generator = torch.Generator().manual_seed(0)
    assert -1 < interpolated_pose(poses, generator)[0, 3] < 1
    assert torch.allclose(interpolated_pose(poses[:1], generator), poses[0], atol=1e-6)


def test_auto_chooses_by_what_the_cameras_see_and_says_so(capsys):
    poses = ring_of_poses(6)
    on_sphere = sample(pose_sampler(poses, "auto"), 20)
    assert torch.allclose(on_sphere[:, :, 3].norm(dim=-1), torch.tensor(4.0), atol=1e-4)
    assert "Semantic poses: sphere (the training cameras surround the scene)." in capsys.readouterr().out
    between = sample(pose_sampler(front_facing_poses(), "auto"), 20)
    assert torch.allclose(between[:, 2, 3], torch.zeros(20), atol=1e-6)
    assert "Semantic poses: interpolate (the training cameras do not surround" in capsys.readouterr().out


def test_given_ranges_replace_those_of_the_cameras_and_interpolation_ignores_them(capsys):
    ranges = {"theta_range": (10.0, 20.0), "phi_range": (50.0, 60.0), "radius_range": (7.0, 8.0)}
    poses = sample(pose_sampler(ring_of_poses(6), "sphere", **ranges), 50)
    radius = poses[:, :, 3].norm(dim=-1)
    assert radius.min() >= 7 - 1e-4 and radius.max() <= 8 + 1e-4
    assert torch.rad2deg(torch.asin(poses[:, 2, 3] / radius)).sub(55).abs().max() <= 5.01
    pose_sampler(front_facing_poses(), "interpolate", **ranges)
    assert "ignore theta-range, phi-range and radius-range" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("radius, warned", [((3.5, 4.5), False), ((3.5, 3.9), False), ((8, 9), True), ((1, 2), True)])
def test_a_radius_that_the_training_cameras_do_not_have_gets_a_word(capsys, radius, warned):
    pose_sampler(ring_of_poses(6), "sphere", radius_range=radius)
    assert ("--pipeline.semantic.radius-range 4 4 puts them there" in capsys.readouterr().out) == warned
