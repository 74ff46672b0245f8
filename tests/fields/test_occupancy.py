import pytest
import torch
from nerfstudio.cameras.rays import RayBundle

from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox
from dietnerf_ns.fields.occupancy import OccupancyGrid, side_for


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


@pytest.mark.parametrize("side", [16, 40])
def test_every_ray_that_meets_something_is_found_and_most_others_are_not(side):
    box = a_box()
    center, radius = box.center + torch.tensor([0.2, 0.1, -0.1]), 0.3
    rays = random_rays(box)
    hit = OccupancyGrid(box, ball(center, radius), side).hit_by(rays)
    distances, cell = distance_to(center, rays), 2 * float(box.half_sizes.max()) / (side - 1)
    assert (distances < radius).sum() > 300
    assert hit[distances < radius].all()
    assert not hit[distances > radius + 4 * cell].any()


def test_density_too_low_to_be_seen_is_empty_and_what_can_be_seen_is_not():
    box = a_box()
    diagonal = 2 * float(box.half_sizes.norm())
    rays = random_rays(box, 200)
    inside = BoxCollider.hit_by(rays)
    for optical_depth, seen in ((0.009, False), (0.011, True)):
        grid = OccupancyGrid(box, lambda p, d=optical_depth: torch.full_like(p[:, :1], d / diagonal), 16)
        assert grid.hit_by(rays[inside]).all() == seen and grid.hit_by(rays[inside]).any() == seen


def test_cells_are_about_two_pixels_and_neither_tiny_nor_huge():
    assert [side_for(width**2) for width in (8, 56, 100, 800)] == [16, 28, 50, 128]
