import math

import pytest
import torch

from dietnerf_ns.fields.contraction import FrontFacingContraction
from dietnerf_ns.geometry.cameras import is_front_facing
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import cameras_side_by_side, pinhole_cameras, ring_of_poses


def test_front_facing_is_told_from_surrounding():
    assert is_front_facing(cameras_side_by_side())
    assert not is_front_facing(pinhole_cameras(ring_of_poses(6)))


def test_cameras_that_only_turn_or_that_are_alone_are_not_front_facing():
    with pytest.raises(UserError, match="use auto, object, around or inside-out"):
        FrontFacingContraction(cameras_side_by_side(count=1))
    assert not is_front_facing(cameras_side_by_side(spread=0.0))
    assert not is_front_facing(cameras_side_by_side(spread=3e-8)), "rounding errors of centred positions"


def test_coordinates_stay_exact_under_autocast():
    contraction = FrontFacingContraction(cameras_side_by_side())
    points = torch.tensor([[0.31, -0.42, -4.0], [1.0, 0.5, -9.0]])
    exact = contraction(points)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contraction(points), exact)


def test_depth_is_linear_in_disparity_from_the_near_plane_to_infinity():
    contraction = FrontFacingContraction(cameras_side_by_side(spread=1.5))
    assert float(contraction.near) == pytest.approx(1.5)
    on_axis = torch.tensor([[0.0, 0.0, -1.5], [0.0, 0.0, -3.0], [0.0, 0.0, -6.0], [0.0, 0.0, -1e6]])
    assert contraction(on_axis)[:, 2].tolist() == pytest.approx([-2, 0, 1, 2], abs=1e-4)


def test_all_that_photos_see_beyond_twice_the_near_depth_lands_inside():
    cameras = cameras_side_by_side()
    contraction = FrontFacingContraction(cameras)
    rays = cameras.generate_rays(camera_indices=torch.arange(5)[:, None]).flatten()
    for depth in (2.0, 5.0, 500.0):
        points = rays.origins + rays.directions * depth / -rays.directions[:, 2:]
        assert contraction(points).abs().max() <= 2 + 1e-4
    assert contraction(rays.origins + rays.directions * 1e5).abs()[:, :2].max() > 1, "and fills the cube"


def test_a_wide_lens_does_not_leave_the_middle_of_the_space_to_everything():
    degrees = 50
    turned = torch.tensor(
        [[math.cos(math.radians(a)), 0, math.sin(math.radians(a))] for a in (-degrees / 2, degrees / 2)]
    )
    poses = cameras_side_by_side(count=2).camera_to_worlds.clone()
    poses[:, :, 2] = turned[:, [2, 1, 0]]
    poses[:, :, 0] = torch.linalg.cross(poses[:, :, 1], poses[:, :, 2])
    cameras = pinhole_cameras(poses, width=40, height=40, focal=10.0)  # corners 71 degrees from the optical axis
    extent = FrontFacingContraction(cameras).half_extent
    assert (extent > 1).all() and (extent < 4.5).all()


def test_points_before_the_near_plane_or_behind_land_outside():
    contraction = FrontFacingContraction(cameras_side_by_side())
    outside = contraction(torch.tensor([[0.0, 0.0, -0.5], [0.0, 0.0, 3.0]]))
    assert (outside[:, 2] < -2).all()


def test_the_frame_turns_with_the_cameras():
    cameras = cameras_side_by_side()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))
    turn = turn * torch.linalg.det(turn).sign()
    turned = pinhole_cameras(turn @ cameras.camera_to_worlds, width=40, height=30, focal=40.0)
    points = torch.tensor([[0.3, -0.4, -4.0], [1.0, 0.5, -9.0]])
    expected = FrontFacingContraction(cameras)(points)
    assert torch.allclose(FrontFacingContraction(turned)(points @ turn.T), expected, atol=1e-4)
