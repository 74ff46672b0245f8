import pytest
import torch

from dietnerf_ns.bench.speed.roofline import (
    OperationCounter,
    device_limits,
    gathered_per_ray,
    gathered_per_sample,
    least_milliseconds,
    operations_per_ray,
    plain_step,
    semantic_parts,
)
from dietnerf_ns.fields.planes import MultiResolutionTriplanes
from tests.helpers.models import tiny_model


def test_operations_of_a_matrix_product_and_its_gradient():
    layer, inputs = torch.nn.Linear(3, 5), torch.ones(7, 3)
    with OperationCounter() as counter:
        outputs = layer(inputs)
        assert counter.total == 2 * 7 * 3 * 5
        outputs.sum().backward()
    assert counter.total == 2 * (2 * 7 * 3 * 5), "the inputs need no gradient"


def test_operations_of_a_ray_are_those_of_its_samples():
    few, many = tiny_model(num_nerf_samples_per_ray=8).eval(), tiny_model(num_nerf_samples_per_ray=16).eval()
    per_sample = (operations_per_ray(many, backward=False) - operations_per_ray(few, backward=False)) / 8
    layers = [m for m in few.field.modules() if isinstance(m, torch.nn.Linear)]
    into_the_box = 3 * 3
    assert per_sample == 2 * (sum(layer.weight.numel() for layer in layers) + into_the_box)
    assert 2 < operations_per_ray(few, backward=True) / operations_per_ray(few, backward=False) <= 3


def test_gathered_bytes():
    assert gathered_per_sample(MultiResolutionTriplanes([4, 8], channels=2, initial_scale=0.1)) == 2 * 2 * 12 * 4
    model = tiny_model(num_proposal_samples_per_ray=(10,), num_nerf_samples_per_ray=6)  # 2 features in both
    assert gathered_per_ray(model) == (10 + 6) * 2 * 12 * 4


def test_a_plain_step_consists_of_its_rays_and_adams_passes():
    model = tiny_model()
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    operations, moved = plain_step(model, rays=100)
    assert moved == 100 * 3 * gathered_per_ray(model) + 7 * 4 * parameters
    assert operations == pytest.approx(100 * operations_per_ray(model.train(), backward=True))


def test_parts_of_a_semantic_step_follow_the_view(small, data, tmp_path):
    pipeline = small.trainer(data, tmp_path).pipeline
    parts = semantic_parts(pipeline.semantic, pipeline.model)
    rays = len(pipeline.semantic.sample_view(0).rays)
    with pipeline.model.scaled_samples(pipeline.semantic.config.sample_fraction):
        assert parts["render forward"][0] == rays * operations_per_ray(pipeline.model.eval(), backward=False)
        assert parts["render forward"][1] == rays * gathered_per_ray(pipeline.model)
    assert parts["render backward"][0] > 2 * parts["render forward"][0]
    forward, backward = parts["encoder forward"][0], parts["encoder backward"][0]
    assert forward == pytest.approx(2 * 0.385e9, rel=0.1), "EfficientNet-Lite0 at 224: 0.39 G multiply-adds, no head"
    assert backward == pytest.approx(forward, rel=0.1), "to the pixels alone: the weights are frozen"


def test_the_roofline_bound_is_the_slower_of_computing_and_moving():
    limits = {"operations_per_second": 1e9, "bytes_per_second": 1e8}
    assert least_milliseconds(1e6, 1e6, limits) == 10.0
    assert least_milliseconds(1e8, 1e6, limits) == 100.0


def test_this_device_can_be_measured():
    limits = device_limits(torch.device("cpu"))
    assert 1e8 < limits["bytes_per_second"] < 1e13 and 1e8 < limits["operations_per_second"] < 1e15
