import pytest
import torch
from nerfstudio.cameras.rays import RayBundle

from dietnerf_ns.fields.density_grid import DensityGrid, side_for
from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox


def a_box():
    """Neither a cube nor parallel to the world's axes, nor around its origin."""
    rotation, _ = torch.linalg.qr(torch.tensor([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.2], [0.1, -0.1, 1.0]]))
    return ObjectBox(rotation, torch.tensor([0.3, -0.2, 0.5]), torch.tensor([1.0, 0.6, 0.8]))


def random_rays(box, count=4000):
    torch.manual_seed(0)
    origins = box.center + 3 * torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    targets = box.center + (2.4 * torch.rand(count, 3) - 1.2) * box.half_sizes @ box.axes
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    return BoxCollider(box, 0.1, 10.0)(RayBundle(origins, directions, torch.full((count, 1), 1e-4)))


def ball(center, radius):
    return lambda positions: 100.0 * ((positions - center).norm(dim=-1, keepdim=True) < radius)


def distance_to(center, rays):
    along = ((center - rays.origins) * rays.directions).sum(-1, keepdim=True)
    return (rays.origins + along * rays.directions - center).norm(dim=-1)


@pytest.mark.parametrize("rule", [DensityGrid.hit_by, DensityGrid.may_be_hit_by])
@pytest.mark.parametrize("side", [16, 40])
def test_every_ray_that_meets_something_is_found_and_most_others_are_not(side, rule):
    box = a_box()
    center, radius = box.center + torch.tensor([0.2, 0.1, -0.1]), 0.3
    rays = random_rays(box)
    hit = rule(DensityGrid(box, ball(center, radius), side), rays)
    distances, cell = distance_to(center, rays), 2 * float(box.half_sizes.max()) / (side - 1)
    assert (distances < radius).sum() > 300
    assert hit[distances < radius].all()
    assert not hit[distances > radius + 4 * cell].any()


def test_positions_in_something_may_be_seen_and_those_far_from_it_are_not():
    box = a_box()
    center, radius = box.center + torch.tensor([0.2, 0.1, -0.1]), 0.3
    positions = box.center + ((2 * torch.rand(20, 200, 3) - 1) * box.half_sizes) @ box.axes
    may_be_seen = DensityGrid(box, ball(center, radius), 40).may_be_seen_at(positions)
    distances, cell = (positions - center).norm(dim=-1), 2 * float(box.half_sizes.max()) / 39
    assert may_be_seen[distances < radius].all() and (distances < radius).sum() > 50
    assert not may_be_seen[distances > radius + 3 * cell].any()


def uniform(density):
    return lambda positions: torch.full_like(positions[:, :1], density)


def test_a_proposal_too_thin_to_be_seen_in_all_of_the_box_is_empty_and_any_denser_one_is_not():
    box = a_box()
    diagonal = 2 * float(box.half_sizes.norm())
    rays = random_rays(box, 200)
    inside = BoxCollider.hit_by(rays)
    for optical_depth, seen in ((0.009, False), (0.011, True)):
        may_be_hit = DensityGrid(box, uniform(optical_depth / diagonal), 16).may_be_hit_by(rays[inside])
        assert may_be_hit.all() == seen and may_be_hit.any() == seen


def test_rays_whose_optical_depth_can_be_seen_are_hit_and_those_that_miss_the_box_are_not():
    box = a_box()
    rays = random_rays(box, 2000)
    lengths = (rays.fars - rays.nears)[:, 0]
    hit = DensityGrid(box, uniform(0.01), 40).hit_by(rays)
    assert hit[lengths > 1].all() and not hit[lengths < 0.95].any()
    assert (lengths > 1).sum() > 300 and (lengths < 0.95).sum() > 300
    assert not DensityGrid(box, uniform(1e6), 40).hit_by(rays)[~BoxCollider.hit_by(rays)].any()


def test_the_density_between_grid_points_is_interpolated_in_the_worlds_frame():
    box = a_box()
    unit = 2 * torch.rand(500, 3) - 1
    positions = box.center + (unit * box.half_sizes) @ box.axes
    slope = torch.tensor([0.3, -0.2, 0.1])
    grid = DensityGrid(box, lambda p: 5 + (p @ slope)[:, None], 20)
    expected = 5 + (positions @ slope)[:, None]
    assert torch.allclose(grid.density(positions), expected, atol=1e-4) and expected.std() > 0.05
    assert grid.density(positions.view(10, 50, 3)).shape == (10, 50, 1)


def test_light_passes_a_cell_so_that_samples_surround_a_surface():
    box = a_box()
    cell = 2 * float(box.half_sizes.max()) / 19
    assert DensityGrid(box, uniform(1e9), 20).density(box.center[None]) * cell == pytest.approx(1.0)


def test_a_grid_is_kept_for_the_same_density_and_size_alone():
    grid = DensityGrid(a_box(), uniform(1.0), 16, state=(1, 2))
    assert grid.is_of(16, (1, 2)) and not grid.is_of(16, (1, 3)) and not grid.is_of(17, (1, 2))


def test_cells_are_as_many_pixels_as_asked_for_and_neither_tiny_nor_huge():
    assert [side_for(width**2, 2) for width in (8, 56, 100, 800)] == [16, 28, 50, 128]
    assert [side_for(width**2, 1) for width in (8, 56, 100, 800)] == [16, 56, 100, 128]
