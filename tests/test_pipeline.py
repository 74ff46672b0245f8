"""The pipeline on the shipped scene, in this process."""

import pytest
import torch

from dietnerf_ns.errors import UserError
from dietnerf_ns.restarts import CollapseDetector
from tests.conftest import FakeEncoder


@pytest.fixture
def pipeline(monkeypatch, tiny_pipeline_config):
    from dietnerf_ns.semantic import consistency

    monkeypatch.setattr(consistency, "make_encoder", lambda config, device: FakeEncoder())
    pipeline = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    pipeline.semantic.prepare(
        pipeline.datamanager.train_dataset,
        blend=pipeline.model.renderer_rgb.blend_background,
        total_steps=100,
        seed=0,
    )
    return pipeline


def test_semantic_loss_is_there_when_due_and_its_last_value_is_logged_in_between(pipeline):
    _, losses, metrics = pipeline.get_train_loss_dict(20)
    assert losses["semantic_loss"].requires_grad
    assert metrics["semantic_loss"] == pytest.approx(float(losses["semantic_loss"]))
    _, losses, between = pipeline.get_train_loss_dict(21)
    assert "semantic_loss" not in losses
    assert between["semantic_similarity"] == metrics["semantic_similarity"]
    _, losses, after = pipeline.get_train_loss_dict(80)
    assert "semantic_loss" not in losses and "semantic_loss" not in after


def test_photometric_batches_do_not_depend_on_the_semantic_loss(pipeline):
    with_semantics = pipeline.get_train_loss_dict(20)[1]["rgb_loss"]
    pipeline.semantic.encoder = None
    assert torch.equal(pipeline.get_train_loss_dict(20)[1]["rgb_loss"], with_semantics)
    assert not torch.equal(pipeline.get_train_loss_dict(21)[1]["rgb_loss"], with_semantics)


def test_checkpoints_of_another_model_are_refused(pipeline):
    state = pipeline.state_dict()
    pipeline.load_pipeline(state, step=0)
    del state["_model.field.mlp_base.0.levels.0.plane_coef"]
    with pytest.raises(UserError, match="lacks 1 part.*plane_coef"):
        pipeline.load_pipeline(state, step=0)


def test_several_processes_are_refused(tiny_pipeline_config):
    with pytest.raises(UserError, match="--machine.num-devices 1"):
        tiny_pipeline_config.setup(device="cpu", world_size=2)


def test_a_restart_is_a_new_initialisation_and_forgets_the_optimisers(pipeline):
    parameters = list(pipeline.model.field.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    optimizers = FakeOptimizers(torch.optim.Adam(parameters))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizers.optimizers["fields"].step()
    pipeline.collapse_detector = CollapseDetector(total_steps=400, photo_variance=0.1)
    pipeline._fit_to_photos = {"mse": torch.tensor(0.2), "opacity": torch.tensor(0.0)}
    for step in range(100):
        pipeline._restart_if_collapsed(optimizers, step)
    assert int(pipeline.restarts) == 1 and "restarts" in pipeline.state_dict()
    assert not optimizers.optimizers["fields"].state
    assert all(a is b for a, b in zip(parameters, pipeline.model.field.parameters(), strict=True))
    random = [(a, b) for a, b in zip(parameters, before, strict=True) if b.std() > 0]
    assert random and not any(torch.equal(a, b) for a, b in random)
    assert max(float(a.abs().max()) for a in parameters) < 2, "an initialisation, not where the optimiser was"


class FakeOptimizers:
    """nerfstudio's collection of optimisers, by parameter group."""

    def __init__(self, fields):
        self.optimizers = {"fields": fields}
