"""The pipeline on the shipped scene, in this process."""

from dataclasses import replace

import pytest
import torch

from dietnerf_ns.errors import UserError
from tests.conftest import FakeEncoder


@pytest.fixture
def make_pipeline(monkeypatch, tiny_pipeline_config):
    from dietnerf_ns.semantic import consistency

    monkeypatch.setattr(consistency, "make_encoder", lambda config, device: FakeEncoder())

    def make(*, model=None, semantic=None):
        config = replace(
            tiny_pipeline_config,
            model=replace(tiny_pipeline_config.model, **(model or {})),
            semantic=replace(tiny_pipeline_config.semantic, **(semantic or {})),
        )
        return ready_to_train(config.setup(device="cpu", test_mode="val"))

    return make


@pytest.fixture
def pipeline(make_pipeline):
    return make_pipeline()


def ready_to_train(pipeline):
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


def field_gradient(loss, pipeline):
    parameters = [p for p in pipeline.model.field.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat([g.flatten() for g in gradients if g is not None])


def test_the_semantic_gradient_is_a_limited_part_of_the_photometric_one(make_pipeline):
    limited = make_pipeline(semantic={"weight": 1e3, "max_gradient_ratio": 0.3})
    _, losses, _ = limited.get_train_loss_dict(20)
    semantic = losses.pop("semantic_loss")
    ratio = field_gradient(semantic, limited).norm() / field_gradient(sum(losses.values()), limited).norm()
    assert float(ratio) == pytest.approx(0.3, rel=1e-3)
    assert float(semantic) > 1, "the logged value is the whole loss"
    free = make_pipeline(semantic={"weight": 1e3, "max_gradient_ratio": 0})
    _, losses, _ = free.get_train_loss_dict(20)
    semantic = losses.pop("semantic_loss")
    assert field_gradient(semantic, free).norm() > field_gradient(sum(losses.values()), free).norm()


def test_both_losses_share_one_generation_of_the_planes(make_pipeline):
    pipeline = make_pipeline(model={"field": "generated-planes"})
    calls = []
    pipeline.model.field.encoding.generator.register_forward_hook(lambda *_: calls.append(None))
    _, losses, _ = pipeline.get_train_loss_dict(20)
    assert len(calls) == 1
    generator = list(pipeline.model.field.encoding.generator.parameters())
    for name in ("rgb_loss", "semantic_loss"):
        gradients = torch.autograd.grad(losses[name], generator, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients), name
    sum(losses.values()).backward()


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
    pipeline._fit_to_photos = {"mse": torch.tensor(0.2), "opacity": torch.tensor(0.0)}
    for step in range(100):
        pipeline._restart_if_collapsed(step, optimizers=optimizers, total_steps=400, photo_variance=0.1)
    assert pipeline.collapse_detector.restarts == 1 and pipeline.model.first_step == 100
    assert not optimizers.optimizers["fields"].state
    assert all(a is b for a, b in zip(parameters, pipeline.model.field.parameters(), strict=True))
    random = [(a, b) for a, b in zip(parameters, before, strict=True) if b.std() > 0]
    assert random and not any(torch.equal(a, b) for a, b in random)
    assert max(float(a.abs().max()) for a in parameters) < 2, "an initialisation, not where the optimiser was"


def test_a_checkpoint_remembers_restarts(make_pipeline):
    pipeline, resumed = make_pipeline(), make_pipeline()
    pipeline.collapse_detector.restart(100)
    resumed.load_pipeline(pipeline.state_dict(), step=150)
    assert resumed.collapse_detector == pipeline.collapse_detector
    assert resumed.model.first_step == 100


class FakeOptimizers:
    """nerfstudio's collection of optimisers, by parameter group."""

    def __init__(self, fields):
        self.optimizers = {"fields": fields}
