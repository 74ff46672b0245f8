import pytest
import torch

from dietnerf_ns.fields.generated_planes import GeneratedTriplanes, PlaneGenerator
from dietnerf_ns.utils.errors import UserError


def test_planes_come_out_from_coarse_to_fine_and_large_enough():
    generator = PlaneGenerator(resolution=30, levels=3, channels=5)
    assert generator.resolutions == [8, 16, 32]
    assert [planes.shape for planes in generator()] == [(3, 5, side, side) for side in (8, 16, 32)]


def test_the_coarsest_planes_have_two_points_at_least():
    generator = PlaneGenerator(resolution=8, levels=4, channels=5)
    assert generator.resolutions == [2, 4, 8, 16]


def test_more_levels_than_the_network_has_are_refused():
    with pytest.raises(UserError, match="plane-levels 5: generated-planes have at most 4"):
        PlaneGenerator(resolution=30, levels=5, channels=5)


def test_planes_are_in_full_precision_under_autocast():
    planes = GeneratedTriplanes(resolution=16, num_levels=2, channels=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert planes(torch.rand(3, 3)).dtype == torch.float32


def test_the_network_is_small_and_its_noise_is_no_parameter():
    generator = PlaneGenerator(resolution=100, levels=3, channels=8)
    assert 50_000 < sum(parameter.numel() for parameter in generator.parameters()) < 150_000
    assert "noise" in dict(generator.named_buffers()) and generator.noise.std() > 0.9


def counted(planes: GeneratedTriplanes) -> list[None]:
    calls = []
    planes.generator.register_forward_hook(lambda *_: calls.append(None))
    return calls


def test_planes_are_generated_once_and_shared_until_forgotten():
    planes = GeneratedTriplanes(resolution=16, num_levels=2, channels=4)
    calls, positions = counted(planes), torch.rand(7, 3)
    first = planes(positions)
    assert torch.equal(planes(positions), first) and float(planes.total_variation().detach()) > 0
    assert len(calls) == 1
    with torch.no_grad():
        planes(positions)
        planes.generator.heads[0].bias.add_(1.0)
    planes.end_step()
    assert not torch.equal(planes(positions), first)
    assert len(calls) == 2


def test_gradients_reach_the_generator_after_an_evaluation():
    planes = GeneratedTriplanes(resolution=16, num_levels=2, channels=4)
    calls = counted(planes)
    with torch.no_grad():
        frozen = planes(torch.zeros(1, 3))
        assert not planes(torch.rand(3, 3)).requires_grad
    assert len(calls) == 1, "in evaluation they are plain planes"
    value = planes(torch.zeros(1, 3))
    value.sum().backward()
    assert torch.equal(value, frozen)
    assert all(parameter.grad.abs().sum() > 0 for parameter in planes.generator.parameters())
    assert [name for name, _ in planes.named_parameters() if not name.startswith("generator.")] == []


def test_a_checkpoint_restores_the_planes_whatever_the_resolution():
    saved = GeneratedTriplanes(resolution=16, num_levels=2, channels=4)
    loaded = GeneratedTriplanes(resolution=40, num_levels=2, channels=4)
    positions = torch.rand(6, 3)
    loaded(positions)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(positions), saved(positions))
