import math

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle

from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.fields.surroundings import (
    FIRST_RADIUS,
    START_RADIUS,
    CubeContraction,
    GrowingSphereCollider,
    ReachSampler,
)
from tests.helpers.cameras import pinhole_cameras, ring_of_poses

CENTER = torch.tensor([1.0, 2.0, 3.0])
HALF = 0.5


def cube_contraction(axes=None):
    axes = torch.eye(3) if axes is None else axes
    return CubeContraction(ObjectBox(axes, CENTER, torch.full((3,), HALF)))


def bundle(origins, directions):
    origins, directions = torch.as_tensor(origins), torch.nn.functional.normalize(torch.as_tensor(directions), dim=-1)
    return RayBundle(origins, directions, pixel_area=torch.ones(len(origins), 1))


def test_the_cube_keeps_its_proportions_and_all_else_fits_around_it():
    space = cube_contraction()
    inside = CENTER + HALF * torch.tensor([[1.0, -0.5, 0.2], [0.0, 0.0, 0.0]])
    assert torch.allclose(space(inside), torch.tensor([[1.0, -0.5, 0.2], [0.0, 0.0, 0.0]]), atol=1e-6)
    outside = CENTER + HALF * torch.tensor([[2.0, 0.0, 0.0], [0.0, 4.0, 2.0], [0.0, 0.0, -1e6]])
    expected = torch.tensor([[1.5, 0.0, 0.0], [0.0, 1.75, 0.875], [0.0, 0.0, -2.0]])
    assert torch.allclose(space(outside), expected, atol=1e-5)


def test_the_cube_stands_along_its_own_axes():
    turn = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = cube_contraction(turn)
    point = CENTER + HALF * torch.tensor([0.0, 0.7, 0.1])
    assert torch.allclose(turned(point), torch.tensor([0.7, 0.0, 0.1]), atol=1e-6)


def test_rays_start_in_the_sphere_and_end_at_the_far_plane():
    collider = GrowingSphereCollider(cube_contraction(), 0.05, 100.0)
    rays = collider(bundle([[1.0, 2.0, 8.0], [1.0, 2.0, 3.1]], [[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]))
    assert rays.nears[:, 0].tolist() == pytest.approx([5 - START_RADIUS * HALF, 0.05]), "the second is in the sphere"
    assert rays.fars[:, 0].tolist() == pytest.approx([100, 100])


def test_a_ray_past_the_sphere_starts_beside_it_and_one_that_leads_away_at_the_near_plane():
    collider = GrowingSphereCollider(cube_contraction(), 0.05, 100.0)
    rays = collider(bundle([[1.0, 4.0, 8.0], [1.0, 2.0, 8.0]], [[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]))
    assert rays.nears[:, 0].tolist() == pytest.approx([5, 0.05])
    assert (rays.fars == 100).all()


def test_the_sampled_space_grows_from_the_centre():
    collider = GrowingSphereCollider(cube_contraction(), 0.05, 1000.0)
    segments = []
    for progress in (0.0, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0, 3.0):
        collider.grow(progress)
        rays = collider(bundle([[1.0, 2.0, 8.0]], [[0.0, 0.0, -1.0]]))
        segments.append((float(rays.nears), float(rays.fars)))
    nears, fars = zip(*segments, strict=True)
    assert segments[0] == pytest.approx((5 - FIRST_RADIUS * HALF, 5 + FIRST_RADIUS * HALF))
    assert list(fars) == sorted(fars) and fars[-2:] == (1000.0, 1000.0) and fars[-3] < 1000
    assert list(nears) == sorted(nears, reverse=True) and nears[-1] == pytest.approx(5 - START_RADIUS * HALF)


def test_a_ray_outside_of_the_sampled_space_has_hardly_any_length():
    collider = GrowingSphereCollider(cube_contraction(), 0.05, 1000.0)
    collider.grow(0.0)
    rays = collider(bundle([[1.0, 2.6, 8.0]], [[0.0, 0.0, -1.0]]))
    assert float(rays.nears) == pytest.approx(5) and 0 < float(rays.fars - rays.nears) < 0.01 * HALF


def test_the_sampled_space_is_saved_with_a_run():
    saved, restored = (GrowingSphereCollider(cube_contraction(), 0.05, 1000.0) for _ in range(2))
    saved.grow(0.5)
    restored.load_state_dict(saved.state_dict())
    assert math.isfinite(restored.radius) and restored.radius == saved.radius


def test_half_of_the_samples_are_within_reach_at_any_scale():
    cameras = pinhole_cameras(ring_of_poses(1))
    for scale in (0.01, 1.0, 100.0):
        rays = cameras.generate_rays(camera_indices=0, keep_shape=False)
        rays.nears, rays.fars = torch.full((len(rays), 1), 1e-4 * scale), torch.full((len(rays), 1), 1e6 * scale)
        samples = ReachSampler(3 * scale, single_jitter=False).eval()(rays, num_samples=200)
        starts = samples.frustums.starts[0, :, 0] / scale
        assert int((starts < 3).sum()) == pytest.approx(100, abs=1)
        within, beyond = starts[starts < 3].diff(), (1 / starts[starts > 3]).diff()
        assert torch.allclose(within, within.mean().expand_as(within), rtol=1e-3), "uniform in distance"
        assert torch.allclose(beyond, beyond.mean().expand_as(beyond), rtol=1e-2), "uniform in disparity"
