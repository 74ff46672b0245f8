"""Contractions of space, and where rays are sampled in it."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from nerfstudio.cameras.rays import RayBundle

from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.fields.surroundings import FIRST_RADIUS, CubeContraction, GrowingSphereCollider, ReachSampler
from tests.properties.strategies import floats, rotations, unit_vectors, vectors


@st.composite
def spaces(draw):
    """A contraction around a cube anywhere, of any size and orientation."""
    return CubeContraction(ObjectBox(draw(rotations()), draw(vectors()), torch.full((3,), draw(floats(0.5, 5)))))


def in_space(space: CubeContraction, local: torch.Tensor) -> torch.Tensor:
    """The world position of coordinates relative to the cube, in halves of its side."""
    return space.center + space.half_size * local @ space.axes


@given(spaces(), vectors(-1, 1))
def test_inside_the_cube_nothing_is_contracted(space, local):
    """A point of the cube keeps its coordinates, in halves of the cube's side."""
    assert torch.allclose(space(in_space(space, local)), local, atol=1e-4)


@given(spaces(), unit_vectors(), floats(0, 8))
def test_all_of_space_lands_in_the_large_cube(space, direction, exponent):
    """Points at any distance land in [-2, 2]^3, those outside of the cube between it and the large one."""
    local = direction / direction.abs().max() * 10**exponent
    contracted = space(in_space(space, local))
    assert float(contracted.abs().max()) <= 2 + 1e-4
    if exponent > 0.01:
        assert float(contracted.abs().max()) >= 1 - 1e-3


@given(spaces(), vectors(-3, 3), vectors(-1, 1))
def test_the_contraction_is_continuous(space, local, step):
    """Neighbouring points have neighbouring images, also across the faces of the cube: in the maximum norm the
    contraction enlarges no distance by more than a factor of 3."""
    near = local + 1e-2 * step
    first, second = space(in_space(space, local)), space(in_space(space, near))
    assert float((first - second).abs().max()) <= 3 * float((local - near).abs().max()) + 1e-4


@given(spaces(), unit_vectors(), floats(0.01, 50), floats(1.01, 2))
def test_farther_points_of_a_ray_stay_farther(space, direction, distance, factor):
    """Along a ray from the centre the images move outwards in the same direction."""
    first, second = (space(in_space(space, direction * length)) for length in (distance, distance * factor))
    assert float(second.abs().max()) > float(first.abs().max())
    assert torch.allclose(second / second.norm(), direction, atol=1e-3)


@given(spaces(), unit_vectors(), floats(0.05, 20))
def test_the_contraction_can_be_undone(space, direction, distance):
    """Outside of the cube the distance 1 / (2 - |y|) of the image y is that of the point: no two points share one."""
    local = direction * distance
    image = space(in_space(space, local)).double()
    norm = image.abs().max()
    restored = image if norm <= 1 else image / norm / (2 - norm)
    assert torch.allclose(restored.float(), local, rtol=1e-2, atol=1e-3)


@given(floats(0.1, 20), floats(0, 1), floats(0, 1))
def test_samples_along_a_ray_are_ordered_and_half_are_within_reach(reach, first, second):
    """The spacing of the first sampler and its inverse undo each other, grow strictly, and reach their middle at
    `reach` and their end at infinity: the density of samples is positive everywhere."""
    sampler = ReachSampler(reach, single_jitter=False)
    low, high = sorted([first * 0.99, second * 0.99])
    ends = sampler.spacing_fn_inv(torch.tensor([low, high]))
    assert torch.allclose(sampler.spacing_fn(ends), torch.tensor([low, high]), atol=1e-4)
    assert high - low < 1e-4 or ends[0] < ends[1]
    middle = sampler.spacing_fn(torch.tensor([0.0, reach, float("inf")]))
    assert torch.allclose(middle, torch.tensor([0.0, 0.5, 1.0]), atol=1e-5)


@given(spaces(), vectors(-4, 4), unit_vectors(), floats(0, 1))
def test_rays_are_sampled_in_a_segment_that_only_grows(space, start, direction, progress):
    """A ray is sampled from a near to a strictly farther distance; the far end grows with the space, and the near end
    lies in the sphere in which rays start unless the camera does, or the ray misses it."""
    rays = RayBundle(in_space(space, start)[None], direction[None], torch.ones(1, 1), camera_indices=torch.zeros(1, 1))
    collider = GrowingSphereCollider(space, near_plane=0.05, far_plane=1e3)
    segments = []
    for part in (0.0, progress, 1.0):
        collider.grow(part)
        bundle = collider.set_nears_and_fars(rays)
        segments.append((float(bundle.nears), float(bundle.fars)))
        assert 0.05 - 1e-6 <= segments[-1][0] < segments[-1][1] <= 1e3 * (1 + 1e-3) + 5
    fars = [far for _, far in segments]
    assert fars[0] <= fars[1] + 1e-3 and fars[1] <= fars[2] + 1e-3
    collider.grow(0.0)
    assert float(collider.radius) == torch.tensor(FIRST_RADIUS)
