from types import SimpleNamespace

import pytest
import torch
from nerfstudio.field_components.encodings import HashEncoding

from dietnerf_ns.bench.speed.roofline import (
    OperationCounter,
    costs_of_a_ray,
    device_limits,
    encoder_parts,
    gathered_per_ray,
    gathered_per_sample,
    least_milliseconds,
    operations_per_ray,
    operations_per_ray_again,
    plain_step,
    render_parts,
)
from dietnerf_ns.fields.planes import MultiResolutionTriplanes
from tests.helpers.models import tiny_model


def weights_of(module):
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Linear))


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
    into_the_box = 3 * 3
    assert per_sample == 2 * (weights_of(few.field) + into_the_box)
    assert 2 < operations_per_ray(few, backward=True) / operations_per_ray(few, backward=False) <= 3


def test_a_ray_that_is_rendered_again_needs_no_proposal_networks():
    model = tiny_model(num_proposal_samples_per_ray=(10,), num_nerf_samples_per_ray=6).eval()
    proposals = 10 * 2 * weights_of(model.proposal_networks[0])
    into_the_box = 10 * 2 * 3 * 3
    again = operations_per_ray(model, backward=False) - operations_per_ray_again(model)
    assert again == proposals + into_the_box > 0


def test_gathered_bytes():
    planes = MultiResolutionTriplanes([4, 8], channels=2, initial_scale=0.1)
    assert gathered_per_sample(planes) == 2 * 2 * 12 * 4
    assert gathered_per_sample(planes.half()) == 2 * 2 * 12 * 2
    model = tiny_model(num_proposal_samples_per_ray=(10,), num_nerf_samples_per_ray=6)  # 2 features in both
    assert gathered_per_ray(model) == (6 * 2 * 12 * 4, 10 * 2 * 12 * 4)


def test_tinycudann_gathers_features_of_its_own_precision():
    grid = HashEncoding(num_levels=3, log2_hashmap_size=4, implementation="torch")
    assert gathered_per_sample(grid) == 8 * 3 * 2 * 4
    grid.tcnn_encoding = SimpleNamespace(dtype=torch.float16)
    assert gathered_per_sample(grid) == 8 * 3 * 2 * 2


def test_a_plain_step_consists_of_its_rays_and_adams_passes():
    """Proposal networks, which most steps do not train, are evaluated."""
    model = tiny_model(num_proposal_samples_per_ray=(64,))
    parameters = sum(p.numel() for p in (*model.field.parameters(), *model.camera_optimizer.parameters()))
    by_field, by_proposals = gathered_per_ray(model)
    operations, moved = plain_step(model, rays=100)
    assert moved == 100 * (3 * by_field + by_proposals) + 7 * 4 * parameters
    model.eval()
    forward, again = operations_per_ray(model, backward=False), operations_per_ray_again(model)
    assert 100 * (forward + again) < operations <= 100 * (forward + 2 * again)


def test_costs_of_a_ray_of_a_semantic_view():
    model = tiny_model(num_proposal_samples_per_ray=(10,), num_nerf_samples_per_ray=6)
    costs = costs_of_a_ray(model, sample_fraction=0.5)
    by_field, by_proposals = 3 * 2 * 12 * 4, 5 * 2 * 12 * 4
    moved = {name: cost[1] for name, cost in costs.items()}
    assert moved == {"render": by_field + by_proposals, "render again": by_field, "gradient": 2 * by_field}
    with model.eval().scaled_samples(0.5):
        assert costs["render"][0] == operations_per_ray(model, backward=False)
        assert costs["render again"][0] == operations_per_ray_again(model)
    assert 1 < costs["gradient"][0] / costs["render again"][0] <= 2


def test_parts_of_the_encoder_in_a_semantic_step(small, data, tmp_path):
    semantic = small.trainer(data, tmp_path).pipeline.semantic
    parts = encoder_parts(semantic)
    forward, backward = parts["encoder forward"][0], parts["encoder backward"][0]
    assert forward == pytest.approx(2 * 0.385e9, rel=0.1), "EfficientNet-Lite0 at 224: 0.39 G multiply-adds, no head"
    assert backward == pytest.approx(forward, rel=0.1), "to the pixels alone: the weights are frozen"
    weights = sum(p.numel() for p in semantic.encoder.network.parameters())
    assert parts["encoder forward"][1] == parts["encoder backward"][1] == 4 * weights
    semantic.encoder.keep_in_half_precision()
    assert encoder_parts(semantic)["encoder forward"] == (forward, 2 * weights)


def test_the_render_is_bounded_for_the_rays_that_were_rendered():
    per_ray = {"render": (10, 7), "render again": (6, 4), "gradient": (12, 8)}
    floor = {
        "per_ray": {name: {"operations": cost[0], "bytes": cost[1]} for name, cost in per_ray.items()},
        "limits": {"operations_per_second": 1e3, "bytes_per_second": 1e6},
    }
    kept = {"rays": 100, "again": 0, "kept": True}
    parts = render_parts(floor, [kept])
    assert parts["render forward"] == {"operations": 1000, "bytes": 700, "milliseconds": 1000}
    assert parts["render backward"] == {"operations": 1200, "bytes": 800, "milliseconds": 1200}
    recomputed = {"rays": 300, "again": 200, "kept": False}
    parts = render_parts(floor, [recomputed, recomputed, kept])
    assert parts["render forward"]["operations"] == 300 * 10
    assert parts["render backward"]["operations"] == 200 * (6 + 12) and parts["render backward"]["bytes"] == 200 * 12


def test_the_roofline_bound_is_the_slower_of_computing_and_moving():
    limits = {"operations_per_second": 1e9, "bytes_per_second": 1e8}
    assert least_milliseconds(1e6, 1e6, limits) == 10.0
    assert least_milliseconds(1e8, 1e6, limits) == 100.0


def test_this_device_can_be_measured():
    limits = device_limits(torch.device("cpu"))
    assert 1e8 < limits["bytes_per_second"] < 1e13 and 1e8 < limits["operations_per_second"] < 1e15
