import pytest
import torch

from dietnerf_ns.geometry.sphere import spherical_coordinates
from dietnerf_ns.orbit import turntable
from dietnerf_ns.orbit.turntable import (
    default_size,
    is_full_circle,
    turntable_azimuths,
    turntable_cameras,
)
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import CENTER, arc_of_poses, pinhole_cameras, ring_of_poses


def not_asked():
    raise AssertionError("the depth of the scene is not needed")


def fit_turntable(poses, *, depth=not_asked, **options):
    return turntable.fit_turntable(poses, depth=depth, **options)


def looking_outwards(poses):
    """The same positions, looking in the opposite direction."""
    outwards = poses.clone()
    outwards[:, :, [0, 2]] *= -1
    return outwards


def test_defaults_are_the_circle_at_the_mean_elevation_and_radius():
    low = ring_of_poses(6, center=CENTER.tolist(), elevation=10, radius=3)
    high = ring_of_poses(2, center=CENTER.tolist(), elevation=50, radius=5)
    sphere = fit_turntable(torch.cat([low, high]))
    assert torch.allclose(sphere.center, CENTER, atol=1e-4)
    assert sphere.azimuth_range == (0, 360)
    assert sphere.elevation_range == pytest.approx((20, 20), abs=1e-2), "the mean over the cameras, not of the extremes"
    assert sphere.radius_range == pytest.approx((3.5, 3.5), abs=1e-3)


def test_given_values_replace_the_fitted_ones():
    sphere = fit_turntable(ring_of_poses(6), theta_range=(-30, 60), phi=-5, radius=2)
    assert (sphere.azimuth_range, sphere.elevation_range, sphere.radius_range) == ((-30, 60), (-5, -5), (2, 2))


@pytest.mark.parametrize("azimuths", [(-20, 5, 15), (170, 200, 185), (350, 370, 360)])
def test_front_facing_cameras_give_their_own_arc(azimuths):
    sphere = fit_turntable(arc_of_poses(azimuths))
    start, end = sphere.azimuth_range
    assert end - start == pytest.approx(max(azimuths) - min(azimuths), abs=0.01)
    assert (start - min(azimuths)) % 360 == pytest.approx(0, abs=0.01) or (start - min(azimuths)) % 360 > 359.99
    assert torch.allclose(sphere.center, CENTER, atol=1e-3)


def test_in_front_of_a_scene_the_camera_moves_along_an_ellipse_within_the_training_cameras():
    poses = torch.cat([arc_of_poses((-20, 10), elevation=30.0), arc_of_poses((0,), elevation=-6.0)])
    sphere = fit_turntable(poses)
    azimuths = turntable_azimuths(sphere.azimuth_range, 40)
    cameras = turntable_cameras(sphere, azimuths, pinhole_cameras(poses[:1]), (40, 30))
    theta, phi, radius = spherical_coordinates(cameras.camera_to_worlds, sphere.center, sphere.up)
    assert theta[[0, 20]] == pytest.approx([sphere.azimuth_range[0], sphere.azimuth_range[1]], abs=0.01)
    assert phi.max() == pytest.approx(30, abs=2) and phi.min() == pytest.approx(-6, abs=2)
    across, up = (theta - theta.mean()) / theta.max().sub(theta.mean()), (phi - phi.mean()) / phi.max().sub(phi.mean())
    assert across**2 + up**2 == pytest.approx(1, abs=0.01)
    assert radius == pytest.approx(float(radius.mean()), rel=1e-4)


@pytest.mark.parametrize("options", [{"phi": 5.0}, {"there_and_back": False}, {"theta_range": (-20, 10)}])
def test_with_any_of_these_settings_the_elevation_stays(options):
    poses = torch.cat([arc_of_poses((-20, 10), elevation=30.0), arc_of_poses((0,), elevation=-6.0)])
    low, high = fit_turntable(poses, **options).elevation_range
    assert low == high


def test_cameras_that_look_apart_have_no_orbit():
    with pytest.raises(UserError, match="nothing to turn around"):
        fit_turntable(looking_outwards(ring_of_poses(8)), radius=3)


@pytest.mark.parametrize("count", [4, 8])
def test_one_camera_that_looks_away_does_not_count(count):
    poses = ring_of_poses(count, center=CENTER.tolist())
    poses[1] = looking_outwards(poses[1:2])[0]
    sphere = fit_turntable(poses)
    assert torch.allclose(sphere.center, CENTER, atol=1e-3)
    assert sphere.radius_range == pytest.approx((4, 4), abs=1e-3)


def test_cameras_of_which_too_many_look_away_have_no_orbit():
    poses = ring_of_poses(8, center=CENTER.tolist())
    poses[::2] = looking_outwards(poses[::2])
    with pytest.raises(UserError, match="nothing to turn around"):
        fit_turntable(poses)


def test_cameras_that_diverge_turn_around_a_point_at_the_given_distance_or_at_the_scenes_depth():
    diverging = looking_outwards(arc_of_poses((-20, 0, 20), elevation=0.0, radius=1.0))
    middle = diverging[:, :, 3].mean(0)
    for sphere in (fit_turntable(diverging, radius=5), fit_turntable(diverging, depth=lambda: 5.0)):
        assert torch.allclose(sphere.center, middle + torch.tensor([5.0, 0.0, 0.0]), atol=1e-4)


def test_cameras_with_the_same_azimuth_need_a_range():
    above = torch.cat([arc_of_poses([0], elevation=e) for e in (0.0, 10.0, 20.0)])
    with pytest.raises(UserError, match="--theta-range"):
        fit_turntable(above)


def test_a_circle_ends_one_step_before_its_start():
    assert turntable_azimuths((0, 360), 4).tolist() == [0, 90, 180, 270]
    assert turntable_azimuths((90, -270), 4).tolist() == [90, 0, -90, -180]


def test_an_arc_goes_there_and_back_or_ends_at_its_end():
    assert turntable_azimuths((10, 50), 4).tolist() == pytest.approx([10, 30, 50, 30])
    assert turntable_azimuths((10, 50), 5, there_and_back=False).tolist() == [10, 20, 30, 40, 50]


def test_what_a_full_circle_is():
    assert is_full_circle((-180, 180)) and is_full_circle((90, -270)) and is_full_circle((0, 720))
    assert not is_full_circle((0, 180)) and not is_full_circle((0, 450)) and not is_full_circle((5, 5))


@pytest.mark.parametrize("theta_range", [(0, 360), (-20, 40)])
@pytest.mark.parametrize("frames", [7, 30])
def test_first_and_last_pose_meet(theta_range, frames):
    sphere = fit_turntable(ring_of_poses(6), theta_range=theta_range)
    like = pinhole_cameras(ring_of_poses(1))
    poses = turntable_cameras(sphere, turntable_azimuths(theta_range, frames), like, (20, 20)).camera_to_worlds
    steps = (poses - poses.roll(-1, 0)).norm(dim=(1, 2))  # the last one is from the last frame to the first
    assert (steps > 1e-3).all() and steps[-1] <= steps.median() + 1e-5


def test_cameras_lie_on_the_circle_and_look_at_the_centre():
    sphere = fit_turntable(ring_of_poses(6, center=CENTER.tolist()), phi=25, radius=2.5)
    azimuths = turntable_azimuths(sphere.azimuth_range, 8)
    poses = turntable_cameras(sphere, azimuths, pinhole_cameras(ring_of_poses(1)), (20, 20)).camera_to_worlds
    found = spherical_coordinates(poses, sphere.center, sphere.up)
    assert torch.allclose(found[0] % 360, azimuths, atol=1e-2)
    assert torch.allclose(found[1], torch.tensor(25.0), atol=1e-2) and torch.allclose(found[2], torch.tensor(2.5))
    to_center = torch.nn.functional.normalize(sphere.center - poses[:, :, 3], dim=-1)
    assert torch.allclose(-poses[:, :, 2], to_center, atol=1e-5)


@pytest.mark.parametrize("size", [(80, 60), (200, 60), (80, 300)])
def test_frame_contains_the_photos_whole_field_of_view(size):
    like = pinhole_cameras(ring_of_poses(1), width=40, height=30, focal=35.0)
    sphere = fit_turntable(ring_of_poses(6))
    camera = turntable_cameras(sphere, torch.zeros(1), like, size)[:1]
    assert (int(camera.width), int(camera.height)) == size
    assert (float(camera.cx), float(camera.cy)) == (size[0] / 2, size[1] / 2)
    assert float(camera.fx) == 70, "twice the photo's focal length, from the side with the smaller scale"


def test_of_a_photo_with_its_axis_beside_the_middle_nothing_is_lost():
    like = pinhole_cameras(ring_of_poses(1), width=40, height=30, focal=35.0)
    like.cx -= 5  # 25 pixels on the right
    camera = turntable_cameras(fit_turntable(ring_of_poses(6)), torch.zeros(1), like, (80, 60))[:1]
    assert float(camera.fx) == pytest.approx(35 * 80 / 50) and float(camera.cx) == 40


def test_default_size_is_the_photos_up_to_1000_pixels():
    assert default_size(pinhole_cameras(ring_of_poses(1), width=504, height=378)) == (504, 378)
    assert default_size(pinhole_cameras(ring_of_poses(1), width=4000, height=3000)) == (1000, 750)
