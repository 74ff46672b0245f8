import pytest
import torch

from dietnerf_ns.fields.planes import MultiResolutionTriplanes


def test_features_are_the_planes_summed_and_the_levels_side_by_side():
    planes = MultiResolutionTriplanes([2, 3], channels=1, initial_scale=0.1)
    with torch.no_grad():
        planes.levels[0].features[:] = torch.tensor([1.0, 2.0, 4.0])[:, None, None, None]
        planes.levels[1].features[:] = 0.5
    assert planes(torch.rand(5, 3)).tolist() == [[pytest.approx(7.0), pytest.approx(1.5)]] * 5


def test_positions_cover_the_unit_cube():
    planes = MultiResolutionTriplanes([2], channels=1, initial_scale=0.1)
    with torch.no_grad():
        planes.levels[0].features.zero_()
        planes.levels[0].features[0, ..., 0] = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # grows along x
    x = torch.tensor([0.0, 0.25, 1.0])
    assert planes(torch.stack([x, torch.rand(3), torch.rand(3)], dim=-1))[:, 0].tolist() == pytest.approx(x.tolist())


def test_a_checkpoint_brings_its_own_resolution():
    """Commands that render without images may see cameras of another size than training did."""
    saved = MultiResolutionTriplanes([4, 8], channels=2, initial_scale=0.1)
    loaded = MultiResolutionTriplanes([16, 32], channels=2, initial_scale=0.1)
    parameters = list(loaded.parameters())
    loaded.load_state_dict(saved.state_dict())
    positions = torch.rand(6, 3)
    assert torch.equal(loaded(positions), saved(positions))
    assert all(a is b for a, b in zip(parameters, loaded.parameters(), strict=True)), "an optimiser keeps hold of them"


def test_total_variation_by_hand():
    planes = MultiResolutionTriplanes([2], channels=1, initial_scale=0.1)
    with torch.no_grad():
        planes.levels[0].features[:] = torch.tensor([[0.0, 1.0], [3.0, 5.0]])[..., None]
    # down: (3, 4) -> mean square 12.5; across: (1, 2) -> mean square 2.5; the same on all three planes
    assert float(planes.total_variation().detach()) == pytest.approx(15.0)


def test_positions_get_gradients(double_precision):
    planes = MultiResolutionTriplanes([4, 8], channels=2, initial_scale=0.1)
    positions = (0.1 + 0.8 * torch.rand(6, 3)).requires_grad_()
    assert torch.autograd.gradcheck(planes, positions)
