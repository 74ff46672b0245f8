import copy

import pytest
import torch
from nerfstudio.data.scene_box import OrientedBox

from dietnerf_ns.models.edges import edge_pixels, rays_within
from tests.conftest import pinhole_cameras, ring_of_poses
from tests.semantic.test_rendering import tiny_model

CAMERA = pinhole_cameras(ring_of_poses(5))[1:2]
CROP = OrientedBox.from_params((0.2, 0.1, 0.0), (0.0, 0.0, 0.3), (1.0, 1.5, 1.2))


def finer(camera, factor):
    camera = copy.deepcopy(camera)
    camera.rescale_output_resolution(factor)
    return camera


def blocks(image, side):
    """[H side, W side, channels] to [H, W, side**2, channels]."""
    height, width, channels = image.shape
    cells = image.reshape(height // side, side, width // side, side, channels).transpose(1, 2)
    return cells.reshape(height // side, width // side, side**2, channels)


def test_edges_are_where_neighbours_differ():
    image = torch.full((6, 8, 3), 0.3)
    image[:, 4:, 1] += 0.25
    assert edge_pixels(image).tolist() == [[row, column] for row in range(6) for column in (3, 4)]
    image[:, 4:, 1] -= 0.1
    assert edge_pixels(image).tolist() == []


@pytest.mark.parametrize("per_side", [1, 2, 3])
def test_rays_are_those_of_a_finer_image(per_side):
    pixels = torch.tensor([[0, 0], [7, 30], [29, 39]])
    rays = rays_within(CAMERA, pixels, per_side)
    assert rays.shape == (3, per_side**2)
    directions = finer(CAMERA, per_side).generate_rays(camera_indices=0, keep_shape=True).directions
    expected = blocks(directions, per_side)[pixels[:, 0], pixels[:, 1]]
    assert torch.allclose(rays.directions, expected, atol=1e-6)


@pytest.mark.parametrize("crop", [None, CROP], ids=["whole", "cropped"])
@pytest.mark.parametrize("per_side", [2, 3])
def test_pixels_at_edges_are_means_over_their_area(per_side, crop):
    model = tiny_model(edge_supersampling=per_side).eval()
    plain = tiny_model(edge_supersampling=1).eval()
    image, one_ray = (m.get_outputs_for_camera(CAMERA, obb_box=crop) for m in (model, plain))
    many_rays = plain.get_outputs_for_camera(finer(CAMERA, per_side), obb_box=crop)
    rows, columns = edge_pixels(one_ray["rgb"]).T
    inside = torch.ones(30, 40, dtype=torch.bool)
    inside[rows, columns] = False
    assert inside.any() and not inside.all()
    for name in ("rgb", "accumulation", "depth"):
        assert torch.equal(image[name][inside], one_ray[name][inside])
        mean = blocks(many_rays[name], per_side).mean(dim=2)
        assert torch.allclose(image[name][~inside], mean[~inside], atol=1e-4)
    assert not torch.allclose(image["rgb"][~inside], one_ray["rgb"][~inside], atol=1e-3)
    whole = model.get_outputs_for_camera(CAMERA)["rgb"]
    assert torch.equal(image["rgb"], whole) == (crop is None)
