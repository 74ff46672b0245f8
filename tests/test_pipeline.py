"""The pipeline on the shipped scene, in this process."""

import shutil
from dataclasses import replace

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.models.nerfacto import NerfactoModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline

from dietnerf_ns import pipeline as pipeline_module
from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.semantic.encoders import EncoderConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.encoders import FakeEncoder
from tests.helpers.models import KeepsActivationsByItself, Storages
from tests.helpers.scenes import as_transforms_json
from tests.helpers.training import start_training, train_step


@pytest.fixture
def make_pipeline(monkeypatch, tiny_pipeline_config):
    """A pipeline in training, whose callbacks are at hand."""
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: FakeEncoder())

    def make(*, model=None, semantic=None, **training):
        config = replace(
            tiny_pipeline_config,
            model=replace(tiny_pipeline_config.model, **(model or {})),
            semantic=replace(tiny_pipeline_config.semantic, **(semantic or {})),
        )
        pipeline = config.setup(device="cpu", test_mode="val")
        return pipeline, start_training(pipeline, **training)

    return make


@pytest.fixture
def pipeline(make_pipeline):
    return make_pipeline()[0]


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
    pipeline.semantic.paused = True
    assert torch.equal(pipeline.get_train_loss_dict(20)[1]["rgb_loss"], with_semantics)
    assert not torch.equal(pipeline.get_train_loss_dict(21)[1]["rgb_loss"], with_semantics)


def step_gradient(pipeline, step):
    """Gradient of all losses of a step on the field, as the trainer takes it; and the losses."""
    pipeline.zero_grad()
    _, losses, _ = pipeline.get_train_loss_dict(step)
    sum(losses.values()).backward()
    gradients = {n: p.grad.clone() for n, p in pipeline.model.named_parameters() if p.grad is not None}
    return gradients, losses


def length(gradients):
    return torch.cat([gradient.flatten() for name, gradient in gradients.items() if name.startswith("field")]).norm()


def test_the_scale_of_half_precision_is_searched_anew_without_the_semantic_loss(pipeline, monkeypatch):
    """Otherwise it stays where the semantic gradients drove it, and small photometric ones vanish."""
    pipeline._grad_scaler = scaler = torch.amp.GradScaler("cpu", init_scale=0.5)
    scaler.scale(torch.ones(()))
    similarity = pipeline.semantic.similarity
    monkeypatch.setattr(pipeline.semantic, "similarity", lambda *given: similarity(*given) * float("nan"))
    monkeypatch.setattr(type(pipeline.bad_steps), "LIMIT", 2)
    for step, scale in ((20, 0.5), (40, 65536.0)):
        pipeline.bad_steps.begin(step)
        pipeline.get_train_loss_dict(step)
        assert scaler.get_scale() == scale
    assert pipeline.semantic.switched_off is not None


def test_a_semantic_step_adds_a_limited_part_to_the_photometric_gradient(make_pipeline):
    def semantic_part(ratio):
        torch.manual_seed(0)
        pipeline, _ = make_pipeline(semantic={"weight": 1e3, "max_gradient_ratio": ratio})
        both, losses = step_gradient(pipeline, 20)
        pipeline.semantic.paused = True
        photometric, _ = step_gradient(pipeline, 20)
        assert both.keys() == photometric.keys()
        for name in both:
            if name.startswith("proposal_networks"):
                assert torch.allclose(both[name], photometric[name], rtol=1e-4, atol=1e-9), name
        return {name: both[name] - photometric[name] for name in both}, length(photometric), losses

    part, photometric_length, losses = semantic_part(0.3)
    assert float(length(part) / photometric_length) == pytest.approx(0.3, rel=1e-3)
    free, photometric_length, unlimited = semantic_part(0)
    assert torch.equal(losses["semantic_loss"], unlimited["semantic_loss"]), "the logged value is the whole loss"
    assert length(free) > photometric_length
    cosine = sum((part[name] * free[name]).sum() for name in part) / (length(part) * length(free))
    assert float(cosine) > 0.9999


def test_photometric_activations_are_gone_before_the_semantic_view_is_rendered(pipeline, monkeypatch):
    alive = []
    with Storages() as storages:
        real_loss = pipeline.semantic.loss

        def counting_loss(*arguments):
            alive.append(storages.numbers_alive())
            return real_loss(*arguments)

        monkeypatch.setattr(pipeline.semantic, "loss", counting_loss)
        losses = VanillaPipeline.get_train_loss_dict(pipeline, 20)[1]
        with_activations = storages.numbers_alive()
        del losses
        pipeline.get_train_loss_dict(20)
    assert alive[0] < with_activations / 3


def test_activations_that_a_library_keeps_by_itself_are_gone_as_well(pipeline, monkeypatch):
    native = KeepsActivationsByItself()
    pipeline.model.field.mlp_base.append(native)
    real_loss, alive = pipeline.semantic.loss, []

    def counting_loss(*arguments):
        alive.append(native.number_alive())
        return real_loss(*arguments)

    monkeypatch.setattr(pipeline.semantic, "loss", counting_loss)
    outputs, losses, _ = pipeline.get_train_loss_dict(20)
    assert len(native.kept) > 0 and alive == [0]
    assert not outputs["rgb"].requires_grad and losses["semantic_loss"].requires_grad


def test_both_losses_share_one_generation_of_the_planes(make_pipeline):
    pipeline, _ = make_pipeline(model={"field": "generated-planes"}, semantic={"max_gradient_ratio": 0, "weight": 100})
    forward, backward = [], []
    generator = pipeline.model.field.encoding.generator
    generator.register_forward_hook(lambda *_: forward.append(None))
    next(generator.parameters()).register_hook(lambda _: backward.append(None))

    def generator_gradient():
        gradients, _ = step_gradient(pipeline, 20)
        pipeline.model.field.encoding.end_step()
        return torch.cat([gradients[name].flatten() for name in gradients if "generator" in name])

    both = generator_gradient()
    assert len(forward) == len(backward) == 1
    pipeline.semantic.paused = True
    photometric = generator_gradient()
    assert photometric.norm() > 0 and (both - photometric).norm() > 0.1 * photometric.norm()


def test_checkpoints_of_another_model_are_refused(pipeline):
    state = pipeline.state_dict()
    pipeline.load_pipeline(state, step=0)
    del state["_model.field.mlp_base.0.levels.0.features"]
    with pytest.raises(UserError, match="lacks 1 part.*features"):
        pipeline.load_pipeline(state, step=0)


def test_the_loss_changed_in_the_viewer_has_the_gradient_limit_that_was_set_there(pipeline):
    """Everything is read from the running loss, whose settings the viewer replaces."""
    semantic = pipeline.semantic
    semantic.reconfigure(weight=1e3, max_gradient_ratio=0.0)
    both, _ = step_gradient(pipeline, 20)
    semantic.paused = True
    photometric, _ = step_gradient(pipeline, 20)
    assert length({name: both[name] - photometric[name] for name in both}) > length(photometric)


def test_with_weight_0_nothing_is_loaded(tiny_pipeline_config, monkeypatch):
    def refuse(*_):
        raise AssertionError("an encoder was asked for")

    monkeypatch.setattr(EncoderConfig, "load_encoder", refuse)
    config = replace(tiny_pipeline_config, semantic=replace(tiny_pipeline_config.semantic, weight=0.0))
    pipeline = config.setup(device="cpu", test_mode="val")
    callbacks = start_training(pipeline)
    assert pipeline.semantic is None
    assert "semantic_loss" not in train_step(pipeline, callbacks, 0)


def test_the_allocator_is_changed_by_training_only(tiny_pipeline_config, monkeypatch):
    changed = []
    monkeypatch.setattr(pipeline_module, "keep_freed_memory", lambda: changed.append(True))
    config = replace(tiny_pipeline_config, semantic=SemanticConfig(weight=0))
    pipeline = config.setup(device="cpu", test_mode="val")
    assert not changed
    start_training(pipeline)
    assert changed == [True]


def test_another_ray_based_model_is_trained_with_the_semantic_loss(tiny_pipeline_config, monkeypatch):
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: FakeEncoder())
    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", torch.nn.Identity)
    small = {"log2_hashmap_size": 8, "num_levels": 2, "implementation": "torch", "near_plane": 2.0, "far_plane": 6.0}
    proposals = [{"hidden_dim": 8, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 32}] * 2
    model = NerfactoModelConfig(**small, proposal_net_args_list=proposals)
    pipeline = replace(tiny_pipeline_config, model=model).setup(device="cpu", test_mode="val")
    callbacks = start_training(pipeline)
    losses = train_step(pipeline, callbacks, 20)
    losses["semantic_loss"].backward()
    assert isinstance(pipeline.model, SemanticModel)
    assert not any("restart" in callback.func.__name__ for callback in callbacks), "its loss need not be an MSE"
    assert sum(float(p.grad.abs().sum()) for p in pipeline.model.field.parameters() if p.grad is not None) > 0
    assert pipeline.semantic.last.gradient.abs().max() > 0


def test_a_model_with_metrics_of_other_names_is_evaluated(tiny_pipeline_config, monkeypatch, capsys):
    measured = {"psnr": 20.0, "fine_ssim": 0.5}
    monkeypatch.setattr(VanillaPipeline, "get_average_eval_image_metrics", lambda *_: dict(measured))
    pipeline = tiny_pipeline_config.setup(device="cpu", test_mode="test")
    capsys.readouterr()
    assert pipeline.get_average_eval_image_metrics() == measured | {"left_out": {}}
    assert "PSNR 20.00 dB; left out: none." in capsys.readouterr().out


def test_a_model_that_renders_no_rays_is_refused_in_one_line(tiny_pipeline_config):
    class Painter(Model):
        def get_outputs(self, camera: Cameras):
            return {}

    with pytest.raises(UserError, match="Painter renders whole images"):
        replace(tiny_pipeline_config, model=ModelConfig(_target=Painter)).setup(device="cpu", test_mode="val")


def test_evaluation_does_not_count_for_the_schedule_of_proposal_networks(tiny_pipeline_config):
    pipeline = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    sampler = pipeline.model.proposal_sampler
    sampler._step, sampler._steps_since_update = 400, 100  # an update is due
    pipeline.get_eval_loss_dict(400)
    pipeline.get_eval_image_metrics_and_images(400)
    assert sampler._steps_since_update == 100


def test_a_restart_is_a_new_initialisation_and_forgets_the_optimisers(tiny_pipeline_config, monkeypatch):
    tiny_pipeline_config.datamanager.train_num_rays_per_batch = 8
    pipeline = replace(tiny_pipeline_config, semantic=SemanticConfig(weight=0)).setup(device="cpu", test_mode="val")
    parameters = list(pipeline.model.field.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    optimizers = FakeOptimizers(torch.optim.Adam(parameters))
    callbacks = start_training(pipeline, total_steps=400, optimizers=optimizers)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizers.optimizers["fields"].step()
    monkeypatch.setattr(pipeline.model, "photometric_mse", lambda losses: torch.tensor(0.2))
    monkeypatch.setattr(pipeline.model, "mean_opacity", lambda outputs: torch.tensor(0.0))
    for step in range(100):
        train_step(pipeline, callbacks, step)
    assert pipeline.collapse_detector.restarts == 1 and pipeline.model.first_step == 100
    assert not optimizers.optimizers["fields"].state
    assert all(a is b for a, b in zip(parameters, pipeline.model.field.parameters(), strict=True))
    random = [(a, b) for a, b in zip(parameters, before, strict=True) if b.std() > 0]
    assert random and not any(torch.equal(a, b) for a, b in random)
    assert max(float(a.abs().max()) for a in parameters) < 0.5, "an initialisation, not where the optimiser was"
    train_step(pipeline, callbacks, 100)
    sampler = pipeline.model.proposal_sampler
    assert (sampler._step, sampler._anneal) == (0, 0), "its schedules begin anew"


def test_a_checkpoint_remembers_restarts(make_pipeline):
    (pipeline, _), (resumed, _) = make_pipeline(), make_pipeline()
    pipeline.collapse_detector.restart(100)
    resumed.load_pipeline(pipeline.state_dict(), step=150)
    assert resumed.collapse_detector == pipeline.collapse_detector
    assert resumed.model.first_step == 100


class FakeOptimizers(Optimizers):
    """nerfstudio's collection of optimisers, by parameter group."""

    def __init__(self, fields):
        self.optimizers = {"fields": fields}


def test_a_fitted_box_comes_with_the_checkpoint(tiny_pipeline_config):
    trained = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    rendering = tiny_pipeline_config.setup(device="cpu", test_mode="inference")
    box, model = rendering.model.field.spatial_distortion, rendering.model
    assert box.half_sizes.tolist() == [1.5] * 3, "it could not see the photos"
    rendering.load_pipeline(trained.state_dict(), step=0)
    assert torch.equal(box.half_sizes, trained.model.field.spatial_distortion.half_sizes)
    assert box.half_sizes.max() < 1.4 and rendering.model.collider.box is box
    assert rendering.model is model, "nothing had to be built again"


def test_semantic_views_wait_until_the_space_of_a_scene_has_grown(tiny_pipeline_config, tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "scene", count=4)
    manager = replace(tiny_pipeline_config.datamanager, dataparser=NerfstudioDataParserConfig(data=scene), data=None)
    model = replace(tiny_pipeline_config.model, scene="around", space_annealing=0.5)
    semantic = replace(tiny_pipeline_config.semantic, every=1, resolution=8, stop=1)
    pipeline = replace(tiny_pipeline_config, datamanager=manager, model=model, semantic=semantic).setup(device="cpu")
    callbacks = start_training(pipeline, total_steps=4)
    assert ["semantic_loss" in train_step(pipeline, callbacks, step) for step in range(4)] == [False, False, True, True]


def test_a_restart_may_leave_no_step_for_semantic_views(tiny_pipeline_config, tiny_scene, tmp_path, capsys):
    scene = as_transforms_json(tiny_scene, tmp_path / "scene", count=4)
    manager = replace(tiny_pipeline_config.datamanager, dataparser=NerfstudioDataParserConfig(data=scene), data=None)
    model = replace(tiny_pipeline_config.model, scene="around", space_annealing=0.5)
    config = replace(tiny_pipeline_config, datamanager=manager, model=model)
    start_training(replace(config, semantic=replace(config.semantic, stop=0.4)).setup(device="cpu"), total_steps=100)
    assert "grows until step 50, and they stop at step 40" in capsys.readouterr().out
    pipeline = replace(config, semantic=replace(config.semantic, stop=0.8)).setup(device="cpu")
    callbacks = start_training(pipeline, total_steps=100)
    assert "there will be none" not in capsys.readouterr().out
    restart = next(c for c in callbacks if c.func == pipeline._restart_if_collapsed)
    train_step(pipeline, [], 40)
    pipeline.collapse_detector.update = lambda *_, **__: "as the test asks"
    pipeline.collapse_detector.can_restart = lambda *_, **__: True  # in a run of real length
    restart.run_callback_at_location(40, restart.where_to_run[0])
    assert "grows until step 91, and they stop at step 80" in capsys.readouterr().out


def test_a_resumed_run_says_that_there_will_be_no_semantic_views(tiny_pipeline_config, capsys):
    config = replace(tiny_pipeline_config, semantic=replace(tiny_pipeline_config.semantic, stop=0.5))
    start_training(config.setup(device="cpu"), total_steps=100, start_step=40)
    assert "there will be none" not in capsys.readouterr().out
    start_training(config.setup(device="cpu"), total_steps=100, start_step=60)
    assert "they stop at step 50, and training goes on from step 60" in capsys.readouterr().out


def test_a_recognised_scene_is_rendered_as_trained_without_its_photos(
    tiny_pipeline_config, tiny_scene, tmp_path, capsys
):
    scene = as_transforms_json(tiny_scene, tmp_path / "scene", count=4)
    manager = replace(tiny_pipeline_config.datamanager, dataparser=NerfstudioDataParserConfig(data=scene))
    manager.data = None
    config = replace(tiny_pipeline_config, datamanager=manager)
    trained = config.setup(device="cpu", test_mode="val").eval()
    camera = trained.datamanager.train_dataset.cameras[0:1]
    shutil.rmtree(scene / "images")
    assert "Scene: object." in capsys.readouterr().out
    rendering = config.setup(device="cpu", test_mode="inference").eval()
    assert not isinstance(rendering.model.field.spatial_distortion, ObjectBox), "it could not see the photos"
    assert "Scene:" not in capsys.readouterr().out, "nothing is known yet"
    rendering.load_pipeline(trained.state_dict(), step=0)
    assert isinstance(rendering.model.field.spatial_distortion, ObjectBox) and not rendering.model.training
    with torch.no_grad():
        images = [p.model.get_outputs_for_camera(camera)["rgb"] for p in (trained, rendering)]
    assert torch.equal(*images) and images[0].std() > 0


def test_what_was_trained_without_tinycudann_is_rendered_without_it(tiny_pipeline_config, monkeypatch):
    """tinycudann cannot be had here: the model only says that it would use it."""
    trained = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    rendered = tiny_pipeline_config.setup(device="cpu", test_mode="test")
    rendered.model.config, model = replace(rendered.model.config, implementation="tcnn"), rendered.model
    asked, rebuild = [], model.rebuild
    monkeypatch.setattr(model, "rebuild", lambda **changes: asked.append(changes) or rebuild(**changes))
    rendered.load_pipeline(trained.state_dict(), step=0)
    assert rendered.model is not model
    assert [changes["implementation"] for changes in asked] == ["torch"]
    for name, value in trained.model.field.state_dict().items():
        assert torch.equal(rendered.model.field.state_dict()[name], value)
    resumed = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    resumed.model.config, model = replace(resumed.model.config, implementation="tcnn"), resumed.model
    resumed.load_pipeline(trained.state_dict(), step=0)
    assert resumed.model is model, "an optimiser keeps hold of it"


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"max_restarts": -1}, "--pipeline.max-restarts -1: must be at least 0"),
        ({"semantic": SemanticConfig(every=0)}, "--pipeline.semantic.every 0: must be at least 1"),
        ({"view_seed": -1}, "--pipeline.datamanager.view-seed -1: must be at least 0"),
        ({"camera_res_scale_factor": 0.0}, "--pipeline.datamanager.camera-res-scale-factor 0.0: must be above 0"),
    ],
)
def test_impossible_settings_are_refused(tiny_pipeline_config, wrong, words):
    ((name, value),) = wrong.items()
    holder = tiny_pipeline_config if hasattr(tiny_pipeline_config, name) else tiny_pipeline_config.datamanager
    setattr(holder, name, value)
    with pytest.raises(UserError, match=words):
        tiny_pipeline_config.setup(device="cpu", test_mode="val")
