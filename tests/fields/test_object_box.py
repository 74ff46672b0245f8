import pytest
import torch

from dietnerf_ns.errors import UserError
from dietnerf_ns.fields.object_box import ObjectBox, surround_one_thing
from tests.conftest import pinhole_cameras, ring_of_poses
from tests.fields.test_contraction import cameras_side_by_side


def tilted(poses, degrees=20.0):
    """The same scene turned around the x axis."""
    angle = torch.deg2rad(torch.tensor(degrees))
    turn = torch.tensor([[1, 0, 0], [0, angle.cos(), -angle.sin()], [0, angle.sin(), angle.cos()]])
    return turn @ poses, turn


def test_nerf_synthetic_cameras_give_about_the_customary_values():
    cameras = pinhole_cameras(ring_of_poses(8, radius=4.03), width=100, height=100, focal=138.9)
    box = ObjectBox(cameras)
    assert torch.allclose(box.center, torch.zeros(3), atol=1e-4)
    assert float(box.half_size) == pytest.approx(4.03 * 50 / 138.9, rel=1e-4)
    assert (box.near, box.far) == pytest.approx((1.98, 6.08), abs=0.01)


def test_a_sphere_that_every_photo_shows_whole_is_in_the_box_and_between_the_planes():
    center, radius, focal = torch.tensor([1.0, -2.0, 0.5]), 3.0, 60.0
    poses = ring_of_poses(6, center=center.tolist(), radius=radius)
    box = ObjectBox(pinhole_cameras(poses, width=60, height=40, focal=focal))
    thing = radius * 20 / (20**2 + focal**2) ** 0.5  # touches the shorter sides
    points = center + thing * torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    assert box(points).abs().max() < 2
    distances = torch.cdist(points, poses[:, :, 3])
    assert box.near < distances.min() and distances.max() < box.far


def test_the_box_stands_upright_in_a_tilted_world():
    poses, turn = tilted(ring_of_poses(6))
    box, upright = ObjectBox(pinhole_cameras(poses)), ObjectBox(pinhole_cameras(ring_of_poses(6)))
    above = torch.tensor([0.0, 0.0, 0.7])
    assert torch.allclose(upright(above), torch.tensor([0.0, 0.0, 1.4]) / upright.half_size, atol=1e-4)
    assert torch.allclose(box(turn @ above), upright(above), atol=1e-4)
    assert float(torch.linalg.det(box.axes)) == pytest.approx(1.0, abs=1e-4)


def test_the_box_is_in_units_of_the_scene():
    small, large = (ObjectBox(pinhole_cameras(ring_of_poses(6, radius=r))) for r in (0.5, 5.0))
    assert float(large.half_size) == pytest.approx(10 * float(small.half_size), rel=1e-4)
    assert (large.near, large.far) == pytest.approx((10 * small.near, 10 * small.far), rel=1e-4)


def test_cameras_that_aim_past_the_thing_get_a_larger_box():
    poses, aside = ring_of_poses(6), 0.3
    poses[:, :, 3] += aside * poses[:, :, 0]
    box = ObjectBox(pinhole_cameras(poses))
    assert torch.allclose(box.center, torch.zeros(3), atol=1e-4)
    assert float(box.half_size) == pytest.approx((4**2 + aside**2) ** 0.5 * 20 / 35 + aside, rel=1e-4)


def test_half_precision_elsewhere_leaves_coordinates_exact():
    box = ObjectBox(pinhole_cameras(ring_of_poses(6)))
    points = torch.rand(50, 3)
    exact = box(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(box(points), exact)


def test_the_near_plane_stays_in_front_of_wide_cameras():
    assert ObjectBox(pinhole_cameras(ring_of_poses(6), width=100, focal=30.0)).near == pytest.approx(0.2)


def test_other_cameras_are_refused():
    assert surround_one_thing(pinhole_cameras(ring_of_poses(6)))
    assert not surround_one_thing(cameras_side_by_side())
    outwards = ring_of_poses(6)
    outwards[:, :, 0], outwards[:, :, 2] = -outwards[:, :, 0], -outwards[:, :, 2]
    assert not surround_one_thing(pinhole_cameras(outwards))
    with pytest.raises(UserError, match="scene object"):
        ObjectBox(cameras_side_by_side())
