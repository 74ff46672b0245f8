from dataclasses import replace

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle

from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox
from dietnerf_ns.geometry.cameras import surround_one_object
from dietnerf_ns.geometry.visual_hull import InconsistentSilhouettes, VisualHull
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import cameras_side_by_side, pinhole_cameras, ring_of_poses


def tilted(poses, degrees=20.0):
    """The same scene turned around the x axis."""
    angle = torch.deg2rad(torch.tensor(degrees))
    turn = torch.tensor([[1, 0, 0], [0, angle.cos(), -angle.sin()], [0, angle.sin(), angle.cos()]])
    return turn @ poses, turn


def test_nerf_synthetic_cameras_give_about_the_customary_values():
    cameras = pinhole_cameras(ring_of_poses(8, radius=4.03), width=100, height=100, focal=138.9)
    box = ObjectBox.seen_by(cameras)
    assert torch.allclose(box.center, torch.zeros(3), atol=1e-4)
    assert box.half_sizes.tolist() == pytest.approx([4.03 * 50 / 138.9] * 3, rel=1e-4)


def test_a_sphere_that_every_photo_shows_whole_is_in_the_box():
    center, radius, focal = torch.tensor([1.0, -2.0, 0.5]), 3.0, 60.0
    poses = ring_of_poses(6, center=center.tolist(), radius=radius)
    box = ObjectBox.seen_by(pinhole_cameras(poses, width=60, height=40, focal=focal))
    extent = radius * 20 / (20**2 + focal**2) ** 0.5  # touches the shorter sides
    points = center + extent * torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    assert box(points).abs().max() < 2


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_a_close_up_does_not_make_the_cube_smaller(distance):
    poses = ring_of_poses(8)
    whole = ObjectBox.seen_by(pinhole_cameras(poses))
    poses[2] = ring_of_poses(8, radius=distance)[2]
    for has_hull in (False, True):
        box = ObjectBox.seen_by(pinhole_cameras(poses), has_hull=has_hull)
        assert torch.allclose(box.half_sizes, whole.half_sizes, rtol=1e-4)
    mixed = torch.cat([ring_of_poses(8), ring_of_poses(3, radius=3.0)])
    smallest = ObjectBox.seen_by(pinhole_cameras(mixed)).half_sizes
    assert torch.allclose(smallest, 0.75 * whole.half_sizes, rtol=1e-4), "what all other photos show"


def test_the_box_stands_upright_in_a_tilted_world():
    poses, turn = tilted(ring_of_poses(6))
    box, upright = ObjectBox.seen_by(pinhole_cameras(poses)), ObjectBox.seen_by(pinhole_cameras(ring_of_poses(6)))
    above = torch.tensor([0.0, 0.0, 0.7])
    assert torch.allclose(upright(above), torch.tensor([0.0, 0.0, 1.4]) / upright.half_sizes, atol=1e-4)
    assert torch.allclose(box(turn @ above), upright(above), atol=1e-4)
    assert float(torch.linalg.det(box.axes)) == pytest.approx(1.0, abs=1e-4)


def test_the_box_is_in_units_of_the_scene():
    small, large = (ObjectBox.seen_by(pinhole_cameras(ring_of_poses(6, radius=r))) for r in (0.5, 5.0))
    assert torch.allclose(large.half_sizes, 10 * small.half_sizes)


def test_cameras_that_aim_past_the_object_get_a_larger_box():
    poses, aside = ring_of_poses(6), 0.3
    poses[:, :, 3] += aside * poses[:, :, 0]
    box = ObjectBox.seen_by(pinhole_cameras(poses))
    assert torch.allclose(box.center, torch.zeros(3), atol=1e-4)
    assert box.half_sizes.tolist() == pytest.approx([(4**2 + aside**2) ** 0.5 * 20 / 35 + aside] * 3, rel=1e-4)


def test_half_precision_elsewhere_leaves_coordinates_exact():
    box = ObjectBox.seen_by(pinhole_cameras(ring_of_poses(6)))
    points = torch.rand(50, 3)
    exact = box(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(box(points), exact)


def test_the_cube_around_a_box_is_scaled_and_a_corner_pair_makes_a_box():
    box = ObjectBox.of(torch.tensor([[0.0, 0.0, 0.0], [4.0, 2.0, 1.0]]))
    assert torch.allclose(
        box(torch.tensor([[4.0, 2.0, 1.0], [0.0, 0.0, 0.0]])), torch.tensor([[2, 1, 0.5], [-2, -1, -0.5]])
    )
    assert (box(torch.tensor([[2.0, 2.5, 0.5], [2.0, 1.0, 1.01]])) > 2).any(-1).all(), "beside the box, in the cube"


def test_a_box_shrinks_to_what_the_hull_leaves_and_a_margin():
    turn = tilted(ring_of_poses(1))[1]
    box = ObjectBox(turn.T, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 2.0]))
    low, high = torch.tensor([-0.5, -1.5, 0.0]), torch.tensor([0.5, 0.2, 1.96])
    normals = torch.cat([turn.T, -turn.T])
    hull = VisualHull(normals, torch.cat([low, -high]) + normals @ box.center, ["photo.png"] * 6)
    shrunk = box.shrunk_to(hull)
    corners = torch.stack([low - box.half_sizes * 0.02, high + box.half_sizes * 0.02])
    corners[0, 1], corners[1, 2] = -1.0, 2.0  # no further than the box itself
    assert torch.allclose(shrunk.center, box.center + turn @ corners.mean(dim=0), atol=1e-5)
    assert torch.allclose(shrunk.half_sizes, (corners[1] - corners[0]) / 2, atol=1e-5)
    elsewhere = VisualHull(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([50.0]), ["photo.png"])
    with pytest.raises(InconsistentSilhouettes):
        box.shrunk_to(elsewhere)


def test_rays_are_cut_to_the_box():
    turn = tilted(ring_of_poses(1))[1]
    box = ObjectBox(turn.T, torch.tensor([0.2, 0.1, -0.3]), torch.tensor([1.0, 0.5, 0.7]))
    rays = pinhole_cameras(ring_of_poses(3)).generate_rays(camera_indices=1, keep_shape=False)
    cut = BoxCollider(box, near_plane=0.05, far_plane=1000.0)(rays)
    along = torch.linspace(0, 8, 4001)
    points = rays.origins[:, None] + along[:, None] * rays.directions[:, None]
    inside = (box.local(points - box.center).abs() <= box.half_sizes).all(-1)
    hit = inside.any(-1)
    assert 0.1 < hit.float().mean() < 0.9
    first, last = along[inside.int().argmax(-1)], along[4000 - inside.flip(-1).int().argmax(-1)]
    assert torch.allclose(cut.nears[hit, 0], first[hit], atol=0.003)
    assert torch.allclose(cut.fars[hit, 0], last[hit], atol=0.003)
    assert float((cut.fars - cut.nears)[~hit].max()) < 0.003
    assert float(cut.fars.max()) < 8, "no ray ends at a depth that nothing in the scene has"


def test_a_ray_along_a_side_of_the_box_that_it_misses_is_finite():
    box = ObjectBox.of(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    rays = pinhole_cameras(ring_of_poses(1)).generate_rays(camera_indices=0, keep_shape=False)[:3]
    rays.origins = torch.tensor([[5.0, 0.0, -4.0]]).expand(3, 3)
    rays.directions = torch.tensor([[0.0, 0.0, 1.0], [1e-8, 0.0, 1.0], [0.0, 1.0, 0.0]])
    collider = BoxCollider(box, near_plane=0.05, far_plane=1000.0)
    collider.planes_cut_images = False
    for training, nears in ((True, 0.05), (False, 0.0)):
        cut = collider.train(training)(replace(rays))
        assert cut.nears[:, 0].tolist() == pytest.approx([nears] * 3)
        assert cut.fars[:, 0].tolist() == pytest.approx([nears] * 3, abs=1e-5)


@pytest.mark.parametrize("training, planes_cut_images", [(True, False), (False, True)])
def test_near_and_far_plane_cut_further_and_no_ray_starts_behind_its_camera(training, planes_cut_images):
    box = ObjectBox.of(torch.tensor([[-9.0] * 3, [9.0] * 3]))
    rays = pinhole_cameras(ring_of_poses(1)).generate_rays(camera_indices=0, keep_shape=False)
    collider = BoxCollider(box, near_plane=1.5, far_plane=6.0).train(training)
    collider.planes_cut_images = planes_cut_images
    cut = collider(rays)
    assert cut.nears.unique().tolist() == [1.5] and cut.fars.unique().tolist() == [6.0]


@pytest.mark.parametrize("distance, nears, fars", [(4.0, 3.0, 5.0), (0.5, 0.0, 1.5), (12.0, 11.0, 13.0)])
def test_images_show_all_of_the_box_from_any_distance_and_nothing_behind_the_camera(distance, nears, fars):
    box = ObjectBox.of(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    ray = RayBundle(torch.tensor([[0.1, 0.2, distance]]), torch.tensor([[0.0, 0.0, -1.0]]), torch.ones(1, 1))
    collider = BoxCollider(box, near_plane=2.0, far_plane=6.0).eval()
    collider.planes_cut_images = False
    cut = collider(ray)
    assert float(cut.nears) == pytest.approx(nears) and float(cut.fars) == pytest.approx(fars)


def test_other_cameras_are_refused():
    assert surround_one_object(pinhole_cameras(ring_of_poses(6)))
    assert not surround_one_object(cameras_side_by_side())
    outwards = ring_of_poses(6)
    outwards[:, :, 0], outwards[:, :, 2] = -outwards[:, :, 0], -outwards[:, :, 2]
    assert not surround_one_object(pinhole_cameras(outwards))
    with pytest.raises(UserError, match="scene object"):
        ObjectBox.seen_by(cameras_side_by_side())


def test_rays_that_miss_a_box_are_told_from_those_that_hit_it():
    box = ObjectBox.of(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    origins = torch.tensor([[0.0, 0.0, 4.0], [0.0, 2.0, 4.0], [0.999, 0.0, 4.0], [0.0, 0.0, 1000.0]])
    directions = torch.tensor([[0.0, 0.0, -1.0]]).expand(4, 3)
    rays = BoxCollider(box, 2.0, 6.0)(RayBundle(origins, directions, torch.ones(4, 1)))
    assert BoxCollider.hit_by(rays).tolist() == [True, False, True, False]
