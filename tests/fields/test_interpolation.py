import pytest
import torch
from torch.nn.functional import grid_sample, mse_loss

from dietnerf_ns.fields.interpolation import channels_last, interpolate, total_variation


def random_planes(side=9, channels=5):
    return torch.randn(3, side, side, channels, dtype=torch.double, requires_grad=True)


def by_grid_sample(planes, positions):
    on_planes = torch.stack([positions[:, [0, 1]], positions[:, [0, 2]], positions[:, [1, 2]]])[:, :, None]
    features = grid_sample(planes.permute(0, 3, 1, 2), on_planes, padding_mode="border", align_corners=True)
    return features.sum(0)[..., 0].T


def gradient_of(loss, planes):
    return torch.autograd.grad(loss, planes)[0]


def test_the_lookup_is_bilinear_interpolation_also_on_the_faces_of_the_cube_and_beyond():
    planes, positions = random_planes(), 2.4 * torch.rand(200, 3, dtype=torch.double) - 1.2
    positions[0], positions[1] = 1, -1
    weights = torch.randn(200, 5, dtype=torch.double)
    found, expected = interpolate(planes, positions), by_grid_sample(planes, positions)
    assert torch.allclose(found, expected, atol=1e-12)
    gradient = gradient_of((found * weights).sum(), planes)
    assert torch.allclose(gradient, gradient_of((expected * weights).sum(), planes), atol=1e-12)
    assert gradient.is_contiguous(), "the fused optimizer wants the order of the parameter"


def test_positions_that_need_gradients_get_them_and_the_same_features():
    planes, positions = random_planes(), 2 * torch.rand(50, 3, dtype=torch.double) - 1
    moving = positions.clone().requires_grad_()
    features = interpolate(planes, moving)
    assert torch.allclose(features, interpolate(planes, positions), atol=1e-12)
    assert torch.autograd.grad(features.sum(), moving)[0].abs().min() > 0


def test_total_variation_and_its_gradient():
    planes = random_planes()
    rows, columns = (planes[:, 1:], planes[:, :-1]), (planes[:, :, 1:], planes[:, :, :-1])
    expected = mse_loss(*rows) + mse_loss(*columns)
    found = total_variation(planes)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    gradient = gradient_of(3 * found, planes)
    assert torch.allclose(gradient, 3 * gradient_of(expected, planes), atol=1e-12)


def test_the_gradient_of_the_total_variation_is_not_taken_twice_from_one_result():
    planes = random_planes()
    variation = total_variation(planes)
    torch.autograd.grad(variation, planes, retain_graph=True)
    with pytest.raises(AssertionError, match="once"):
        torch.autograd.grad(variation, planes)


def test_planes_in_the_order_of_images_are_brought_into_that_of_lookups():
    images = torch.arange(3 * 2 * 4 * 4.0).view(3, 2, 4, 4)
    planes = channels_last(images)
    assert planes.shape == (3, 4, 4, 2) and planes.is_contiguous()
    assert planes[1, 2, 3].tolist() == images[1, :, 2, 3].tolist()
