"""The semantic loss on splatfacto: its densification and its training are real, the rasteriser is a stand-in."""

import copy
from dataclasses import replace

import pytest
import torch
from nerfstudio.configs.method_configs import method_configs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.models import splatfacto
from nerfstudio.plugins.types import MethodSpecification
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerElement

from dietnerf_ns.data.datamanager import FewShotImageDataManager
from dietnerf_ns.models.metrics import LazyLPIPS
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.semantic.encoders import EncoderConfig
from dietnerf_ns.semantic.rendering import render_image
from dietnerf_ns.semantic_method import semantic_method
from dietnerf_ns.training.trainer import SafeTrainerConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.encoders import FakeEncoder
from tests.helpers.models import slopes_along_gradient
from tests.helpers.rasterizer import rasterization
from tests.helpers.training import start_training, train_step

GAUSSIANS = 60
SMALL = {"num_random": GAUSSIANS, "random_scale": 2.0, "num_downscales": 0, "sh_degree": 1, "use_absgrad": False}


@pytest.fixture
def make(monkeypatch, tiny_scene):
    """dietnerf-splat's pipeline on the shipped scene, on a CPU that splatfacto takes for a GPU."""
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: FakeEncoder())
    monkeypatch.setattr(splatfacto, "rasterization", rasterization)
    monkeypatch.setattr(splatfacto, "get_viewmat", splatfacto.get_viewmat._torchdynamo_orig_callable)  # not compiled
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)

    def make(model=None, **semantic):
        config = copy.deepcopy(method().config)
        config.pipeline.model = replace(config.pipeline.model, **(SMALL | (model or {})))
        config.pipeline.semantic = SemanticConfig(every=2, resolution=16, **semantic)
        data = config.pipeline.datamanager
        data.dataparser, data.num_views, data.camera_res_scale_factor = BlenderDataParserConfig(data=tiny_scene), 4, 0.2
        torch.manual_seed(0)
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            pipeline = config.pipeline.setup(device="cpu", test_mode="val")
        groups = pipeline.get_param_groups()
        used = {name: settings for name, settings in config.optimizers.items() if name in groups}
        optimizers = Optimizers(copy.deepcopy(used), groups)
        return pipeline, start_training(pipeline, total_steps=20, optimizers=optimizers), optimizers

    return make


def method(**settings) -> MethodSpecification:
    return semantic_method(method_configs["splatfacto"], name="dietnerf-splat", description="a test", **settings)


def train(pipeline, callbacks, optimizers, steps):
    """Steps as the trainer takes them: the densification comes after the optimizers."""
    seen, before = [], before_a_step(callbacks)
    for step in range(steps):
        losses = train_step(pipeline, before, step)
        seen.append(set(losses))
        optimizers.zero_grad_all()
        sum(losses.values()).backward()
        optimizers.optimizer_step_all()
        for callback in callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
    return seen


def before_a_step(callbacks):
    return [one for one in callbacks if TrainingCallbackLocation.BEFORE_TRAIN_ITERATION in one.where_to_run]


def test_it_trains_with_the_semantic_loss_and_grows_gaussians(make):
    pipeline, callbacks, optimizers = make({"warmup_length": 1, "refine_every": 3, "densify_grad_thresh": 1e-9})
    pipeline.model.strategy.pause_refine_after_reset = 0
    before = pipeline.model.means.detach().clone()
    seen = train(pipeline, callbacks, optimizers, 5)
    assert ["semantic_loss" in losses for losses in seen] == [True, False] * 2 + [True]
    model = pipeline.model
    assert len(model.means) > GAUSSIANS, "they were grown after step 3"
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not torch.equal(model.means[: len(before)], before)
    assert isinstance(model.lpips, LazyLPIPS), "nothing is downloaded before an image is evaluated"
    assert pipeline.semantic.last.gradient.abs().max() > 0


def test_the_viewer_finds_its_elements(make):
    """nerfstudio's viewer reads every attribute of the pipeline and of its modules."""
    pipeline, _, _ = make()
    assert parse_object(pipeline, ViewerElement, "Custom Elements")
    assert torch.equal(pipeline.model.background, pipeline.model._background)


def test_the_semantic_loss_changes_the_gradient_of_its_steps_alone_and_never_the_densification(make):
    def after_a_step(step, weight):
        pipeline, callbacks, _ = make(weight=weight, max_gradient_ratio=0)
        losses = train_step(pipeline, before_a_step(callbacks), step)
        sum(losses.values()).backward()
        info = pipeline.model.info
        return pipeline.model.features_dc.grad, info["means2d"].grad, (info["width"], info["height"])

    with_loss, grown_by, size = after_a_step(2, 1.0)
    without, grown_without, _ = after_a_step(2, 0.0)
    assert size == (20, 20), "the photo, not the view of 16 pixels"
    assert not torch.equal(with_loss, without)
    assert torch.equal(grown_by, grown_without) and grown_by.abs().max() > 0
    assert torch.equal(after_a_step(3, 1.0)[0], after_a_step(3, 0.0)[0])


@pytest.mark.parametrize("name", ["features_dc", "opacities", "means"])
def test_the_gradient_of_an_unseen_view_is_that_of_finite_differences(make, name):
    pipeline, _, _ = make()
    model, camera = pipeline.model, pipeline.semantic.sample_view(0).camera
    weights = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def loss():
        return (render_image(model, camera).double() * weights).sum()

    slope, finite = slopes_along_gradient(loss, model.gauss_params[name], change=3e-3)
    assert finite == pytest.approx(slope, rel=0.02)


def test_a_semantic_view_does_not_show_what_the_viewer_has_set(make):
    pipeline, _, _ = make()
    model, view = pipeline.model, pipeline.semantic.sample_view(0)
    assert model.training
    image = pipeline.semantic.render(model, view)
    model.set_background(torch.tensor([1.0, 0.0, 0.0]))
    model.set_crop(type("Nothing", (), {"within": lambda self, points: torch.zeros(len(points), 1).bool()})())
    model.info, model.last_size = "of the photo", (20, 20)
    assert torch.equal(pipeline.semantic.render(model, view), image)
    assert model.training and model.info == "of the photo" and model.last_size == (20, 20)
    assert model.crop_box is not None and model.background_color.tolist() == [1, 0, 0]


def test_transparent_photos_are_compared_on_the_background_of_the_views(make):
    pipeline, _, _ = make()
    model, photo = pipeline.model, torch.tensor([[[1.0, 0.0, 0.0, 0.25]]])
    background = torch.tensor([0.1490, 0.1647, 0.2157])
    expected = 0.25 * photo[..., :3] + 0.75 * background
    assert torch.allclose(model.blend_background(photo), expected)
    assert torch.equal(model.blend_background(photo[..., :3]), photo[..., :3])
    as_cached = (255 * photo).round().byte()
    assert torch.allclose(model.blend_background(as_cached), expected, atol=1 / 255)


def test_the_fit_in_the_panel_is_the_mean_squared_error_of_the_photo(make):
    pipeline, callbacks, _ = make()
    train_step(pipeline, before_a_step(callbacks), 1)
    model = pipeline.model
    assert 0 < float(pipeline._fit_to_photos["mse"]) == float(model.photometric_mse({})) < 1
    render = torch.full((8, 8, 3), 0.5)
    model.get_metrics_dict({"rgb": render, "background": torch.zeros(3)}, {"image": render + 0.1})
    assert float(model.photometric_mse({})) == pytest.approx(0.01, rel=1e-3)


def test_few_views_are_kept_and_settings_taken_over(make):
    config = method().config
    assert isinstance(config, SafeTrainerConfig)
    original = method_configs["splatfacto"]
    assert config.pipeline.datamanager.cache_images_type == original.pipeline.datamanager.cache_images_type == "uint8"
    assert config.optimizers == original.optimizers and config.pipeline.model == original.pipeline.model
    pipeline, _, _ = make()
    manager = pipeline.datamanager
    assert isinstance(manager, FewShotImageDataManager)
    assert len(manager.train_dataset) == len(manager.cached_train) == 4
    assert len(manager.fixed_indices_eval_dataloader) == len(manager.eval_dataset) > 0


def test_a_saved_model_is_loaded_and_evaluated(make):
    pipeline, callbacks, optimizers = make({"warmup_length": 1, "refine_every": 3, "densify_grad_thresh": 1e-9})
    pipeline.model.strategy.pause_refine_after_reset = 0
    train(pipeline, callbacks, optimizers, 5)
    state = copy.deepcopy(pipeline.state_dict())
    other, _, _ = make()
    other.test_mode = "test"
    other.load_pipeline(state, 4)
    assert torch.equal(other.model.means, pipeline.model.means) and len(other.model.means) > GAUSSIANS
    metrics = other.get_average_eval_image_metrics()
    assert 0 < metrics["psnr"] < 40 and "lpips" in metrics["left_out"]


def test_without_a_gpu_it_is_refused_in_one_line(tiny_scene, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = copy.deepcopy(method().config.pipeline)
    config.datamanager.dataparser = BlenderDataParserConfig(data=tiny_scene)
    with pytest.raises(UserError, match="SplatfactoModel rasterises on CUDA GPUs only") as error:
        config.setup(device="cpu", test_mode="val")
    assert "\n" not in str(error.value)


def test_several_processes_are_refused(tiny_scene):
    with pytest.raises(UserError, match="--machine.num-devices: SplatfactoModel trains in one process"):
        method().config.pipeline.setup(device="cpu", test_mode="val", world_size=2)
