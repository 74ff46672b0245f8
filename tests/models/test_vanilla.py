import pytest
import torch

from dietnerf_ns.models.vanilla import DietVanillaModelConfig
from dietnerf_ns.semantic.rendering import render_view
from dietnerf_ns.utils.errors import UserError
from tests.helpers.models import BOX, rays_of_a_view


def vanilla(**settings):
    small = {"num_coarse_samples": 4, "num_importance_samples": 4}
    return DietVanillaModelConfig(**(small | settings)).setup(
        scene_box=BOX, num_train_data=3, metadata={}, device="cpu"
    )


@pytest.mark.parametrize("renders, trained", [("both", {"coarse", "fine"}), ("coarse", {"coarse"}), ("fine", {"fine"})])
def test_the_semantic_loss_reaches_the_fields_it_is_asked_to(renders, trained):
    model = vanilla(semantic_renders=renders).train()
    rays, size = rays_of_a_view(8)
    images = render_view(model, rays, size)
    assert len(images) == len(trained)
    images.sum().backward()
    reached = {
        n for n in ("coarse", "fine") if any(p.grad is not None for p in getattr(model, f"field_{n}").parameters())
    }
    assert reached == trained


def test_outputs_have_the_names_that_other_commands_expect():
    rays, _ = rays_of_a_view(8)
    outputs = vanilla().eval()(rays)
    for name in ("rgb", "accumulation", "depth"):
        assert torch.equal(outputs[name], outputs[f"{name}_fine"])


def test_evaluation_keeps_the_near_plane():
    model = vanilla().eval()
    assert float(model.collider(rays_of_a_view(8)[0]).nears.min()) == 2.0


def test_rays_need_near_and_far_planes():
    with pytest.raises(UserError, match="--pipeline.model.enable-collider False: must be True"):
        vanilla(enable_collider=False)


@pytest.mark.parametrize(("near", "far"), [(-1.0, 6.0), (6.0, 2.0), (2.0, 2.0)])
def test_a_far_plane_in_front_of_the_near_one_is_refused(near, far):
    line = f"--pipeline.model.collider-params near_plane {near:g} far_plane {far:g}: the near plane must be at least 0"
    with pytest.raises(UserError, match=line):
        vanilla(collider_params={"near_plane": near, "far_plane": far})
    with pytest.raises(UserError, match="collider-params near 2 far 6: must be near_plane and far_plane, each"):
        vanilla(collider_params={"near": 2.0, "far": 6.0})


def test_collapses_are_told_by_errors_without_their_weights():
    model = vanilla(loss_coefficients={"rgb_loss_coarse": 0.1, "rgb_loss_fine": 0.01}).train()
    outputs = model(rays_of_a_view(8)[0])
    batch = {"image": torch.rand(len(outputs["rgb"]), 3)}
    mse = float(model.photometric_mse(model.get_loss_dict(outputs, batch)))
    assert mse == pytest.approx(float((outputs["rgb_fine"] - batch["image"]).square().mean()), rel=1e-4)
    with pytest.raises(UserError, match="loss-coefficients .*: must be above 0 for rgb_loss_fine"):
        vanilla(loss_coefficients={"rgb_loss_fine": 0.0})
    vanilla(loss_coefficients={"rgb_loss_coarse": 0.0, "rgb_loss_fine": 1.0})


def test_rays_need_samples():
    with pytest.raises(UserError, match="num-coarse-samples 0: must be at least 1"):
        vanilla(num_coarse_samples=0)


def test_positions_and_directions_are_encoded_as_in_the_papers_code():
    position = torch.tensor([[0.3, -1.2, 3.0]])
    for encoding, frequencies in (
        (vanilla().field_coarse.position_encoding, 10),
        (vanilla().field_fine.direction_encoding, 4),
    ):
        expected = [position]
        for power in range(frequencies):
            expected += [torch.sin(2**power * position), torch.cos(2**power * position)]
        numbers, expected = encoding(position).flatten(), torch.cat(expected, dim=-1).flatten()
        assert torch.allclose(numbers.sort().values, expected.sort().values, atol=1e-3)
