"""The semantic loss on nerfstudio's own methods: they train for real, on a CPU, with small networks."""

import copy
import subprocess
import sys
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import ModuleType

import pytest
import torch
from nerfstudio.configs.method_configs import all_methods, method_configs
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from dietnerf_ns import nerfstudio_methods
from dietnerf_ns.data.pixel_samplers import ForegroundPixelSamplerConfig
from dietnerf_ns.methods import VIEWER_HOST
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.models.metrics import LazyLPIPS
from dietnerf_ns.models.trainable import trainable_with_semantic_loss
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.semantic.encoders import EncoderConfig
from dietnerf_ns.semantic.rendering import render_view
from dietnerf_ns.semantic_method import semantic_method
from dietnerf_ns.training.trainer import SafeTrainerConfig
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.seeding import seed_everything
from tests.helpers.commands import ns
from tests.helpers.encoders import FakeEncoder
from tests.helpers.markdown import DOCS, code_blocks
from tests.helpers.models import BOX, rays_of_a_view, slopes_along_gradient
from tests.helpers.training import start_training, train_step

ON_A_CPU = ["nerfacto", "tensorf", "mipnerf"]
SMALL = {
    "nerfacto": {
        "num_levels": 4,
        "log2_hashmap_size": 10,
        "num_proposal_samples_per_ray": (16, 8),
        "num_nerf_samples_per_ray": 8,
        "implementation": "torch",
        "background_color": "white",
    },
    "tensorf": {
        "init_resolution": 8,
        "num_samples": 8,
        "num_uniform_samples": 16,
        "num_den_components": 2,
        "num_color_components": 3,
    },
    "mipnerf": {"num_coarse_samples": 8, "num_importance_samples": 8},
}
COLOURS = {
    "nerfacto": "field.mlp_head.layers.0.weight",
    "tensorf": "field.color_encoding.plane_coef",
    "mipnerf": "field.mlp_head.layers.0.weight",
}
"""Parameters that colours depend on and positions of samples do not: those are constants to the gradient."""


def small(name, **settings):
    """One of nerfstudio's methods with the semantic loss, on the shipped scene, small enough for a CPU."""
    method = semantic_method(method_configs[name], name=f"dietnerf-{name}", description="a test")
    config = method.config.pipeline
    config.model = replace(config.model, **SMALL[name])
    config.semantic = SemanticConfig(every=2, resolution=16, **settings)
    config.datamanager.train_num_rays_per_batch = 64
    return config


@pytest.fixture
def make(monkeypatch, tiny_scene):
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: FakeEncoder())

    def make(name, **settings):
        config = small(name, **settings)
        config.datamanager.dataparser = BlenderDataParserConfig(data=tiny_scene)
        seed_everything(0, 0)  # nerfstudio's loader shuffles the photos
        pipeline = config.setup(device="cpu", test_mode="val")
        return pipeline, start_training(pipeline, total_steps=20)

    return make


@pytest.mark.parametrize("name", ON_A_CPU)
def test_a_method_trains_with_the_semantic_loss(name, make):
    pipeline, callbacks = make(name)
    groups = pipeline.get_param_groups()
    optimizer = torch.optim.Adam([p for group in groups.values() for p in group], lr=1e-3)
    before = copy.deepcopy(pipeline.model.state_dict())
    for step in range(4):
        losses = train_step(pipeline, callbacks, step)
        assert ("semantic_loss" in losses) == (step % 2 == 0)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    after = pipeline.model.state_dict()
    assert not torch.equal(before[COLOURS[name]], after[COLOURS[name]])
    assert all(value.isfinite().all() for value in after.values() if isinstance(value, torch.Tensor))
    assert isinstance(pipeline.model.lpips, LazyLPIPS), "nothing is downloaded before an image is evaluated"


@pytest.mark.parametrize("name", ON_A_CPU)
def test_the_semantic_loss_changes_the_gradient_of_its_steps_alone(name, make):
    def gradient(step, weight):
        pipeline, callbacks = make(name, weight=weight)
        losses = train_step(pipeline, callbacks, step)
        sum(losses.values()).backward()
        return dict(pipeline.model.named_parameters())[COLOURS[name]].grad

    assert not torch.equal(gradient(2, weight=1.0), gradient(2, weight=0.0))
    assert torch.equal(gradient(3, weight=1.0), gradient(3, weight=0.0))


@pytest.mark.parametrize("name", ON_A_CPU)
def test_the_gradient_of_an_unseen_view_is_that_of_finite_differences(name):
    torch.manual_seed(0)
    config = trainable_with_semantic_loss(small(name).model)
    model = config.setup(scene_box=BOX, num_train_data=3, metadata={}, device="cpu").train()
    assert model.faint == 0, "the densities of other methods may have any slope, as TensoRF's"
    rays, size = rays_of_a_view()
    weights = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))

    def loss():
        images = render_view(model, rays, size, rays_per_chunk=20)
        return (images.double() * weights[: len(images)]).sum()

    parameter = dict(model.named_parameters())[COLOURS[name]]
    slope, finite = slopes_along_gradient(loss, parameter, change=2e-4)  # small: networks of rectifiers have kinks
    assert finite == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("name", ON_A_CPU)
def test_settings_without_effect_are_named(name, make, monkeypatch, capsys):
    make(name, sample_fraction=0.25)
    assert "Ignored" not in capsys.readouterr().out
    monkeypatch.setattr(SemanticModel, "has_fixed_samples", False)  # as with instant-ngp, which needs CUDA
    make(name, sample_fraction=0.25)
    assert "Ignored with this model: --pipeline.semantic.sample-fraction." in capsys.readouterr().out


def test_only_what_the_loss_needs_is_changed():
    original = copy.deepcopy(method_configs["tensorf"])
    method = semantic_method(method_configs["tensorf"], name="diet", description="TensoRF, few-shot")
    config = method.config
    assert isinstance(method, MethodSpecification) and method.description == "TensoRF, few-shot"
    assert isinstance(config, SafeTrainerConfig) and config.method_name == "diet"
    assert method_configs["tensorf"] == original, "the original is left as it is"
    changed = {"_target", "method_name", "pipeline", "machine", "viewer"}
    for one in fields(original):
        if one.name not in changed:
            assert getattr(config, one.name) == getattr(original, one.name), one.name
    assert config.pipeline.model == original.pipeline.model
    assert config.pipeline.datamanager.dataparser == original.pipeline.datamanager.dataparser
    assert config.pipeline.datamanager.pixel_sampler == original.pipeline.datamanager.pixel_sampler
    assert not isinstance(config.pipeline.datamanager.pixel_sampler, ForegroundPixelSamplerConfig)
    assert config.pipeline.semantic == SemanticConfig()
    assert config.viewer.websocket_host == VIEWER_HOST


def test_a_registered_method_with_settings_of_the_loss_can_be_given():
    semantic = SemanticConfig(encoder="embedded", weight=0.5)
    method = semantic_method(
        MethodSpecification(method_configs["nerfacto"], "nerfacto"), name="n", description="d", semantic=semantic
    )
    assert method.config.pipeline.semantic == semantic


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("depth-nerfacto", "trains on more than photos .DepthDataset."),
        ("neus", "trains on more than photos .SDFDataset."),
        ("generfacto", "has a datamanager of its own, RandomCamerasDataManager"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(name, reason):
    with pytest.raises(UserError, match=reason) as error:
        semantic_method(method_configs[name], name="x", description="d")
    assert "\n" not in str(error.value)


def test_a_trainer_or_pipeline_of_its_own_is_refused():
    class OwnTrainer:
        pass

    config = copy.deepcopy(method_configs["nerfacto"])
    config._target = OwnTrainer
    with pytest.raises(UserError, match="has a trainer of its own, OwnTrainer"):
        semantic_method(config, name="x", description="d")
    config = copy.deepcopy(method_configs["nerfacto"])
    config.pipeline._target = OwnTrainer
    with pytest.raises(UserError, match="has a pipeline of its own, OwnTrainer.*DynamicBatchPipeline"):
        semantic_method(config, name="x", description="d")


def test_a_scene_that_moves_is_refused(make, monkeypatch):
    monkeypatch.setattr("nerfstudio.data.dataparsers.blender_dataparser.Blender.includes_time", True)
    with pytest.raises(UserError, match="unseen view has no time"):
        make("nerfacto")


SOURCES = "src_rgbs", "src_cameras", "focal", "c"


class PixelNeRFDataManager(VanillaDataManager):
    """Stands in for the plugin's: it puts photos into the metadata of rays, whose number they do not have."""

    def next_train(self, step):
        rays, batch = super().next_train(step)
        photos = torch.stack([self.train_dataset[0]["image"]] * self.config.num_source_views)
        rays.metadata |= dict.fromkeys(SOURCES) | {"src_rgbs": photos[None]}
        return rays, batch


@dataclass
class PixelNeRFDataManagerConfig(VanillaDataManagerConfig):
    _target: type = field(default_factory=lambda: PixelNeRFDataManager)
    num_source_views: int = 3


class PixelNeRFModel(NerfactoModel):
    """Stands in for the plugin's: it cannot render rays without photos, and its accumulation lacks a dimension."""

    def get_outputs(self, ray_bundle):
        shift = ray_bundle.metadata["src_rgbs"].mean()
        of_rays = {name: value for name, value in ray_bundle.metadata.items() if name not in SOURCES}
        ray_bundle = replace(ray_bundle, metadata=of_rays)
        outputs = super().get_outputs(ray_bundle)
        return outputs | {"rgb": outputs["rgb"] * shift, "accumulation": outputs["accumulation"][..., 0]}


@dataclass
class PixelNeRFModelConfig(NerfactoModelConfig):
    _target: type = field(default_factory=lambda: PixelNeRFModel)
    adaptation_strategy: str = "zero-shot"


class PixelNerfPipeline(VanillaPipeline):
    """Stands in for the plugin's, which has another name and nothing else of its own."""

    config: VanillaPipelineConfig


def plugin_modules():
    config = copy.deepcopy(method_configs["nerfacto"])
    config.pipeline = VanillaPipelineConfig(
        _target=PixelNerfPipeline, datamanager=PixelNeRFDataManagerConfig(), model=PixelNeRFModelConfig()
    )
    return {
        "PixelNeRFConfig": {"PixelNeRF": MethodSpecification(config, "pixelNeRF")},
        "PixelNeRFDataManager": {
            "PixelNeRFDataManager": PixelNeRFDataManager,
            "PixelNeRFDataManagerConfig": PixelNeRFDataManagerConfig,
        },
        "PixelNeRFModel": {"PixelNeRFModel": PixelNeRFModel, "PixelNeRFModelConfig": PixelNeRFModelConfig},
    }


def test_the_example_of_a_method_with_a_datamanager_of_its_own_trains(monkeypatch, tiny_scene):
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: FakeEncoder())
    modules = plugin_modules()
    with pytest.raises(UserError, match="datamanager of its own, PixelNeRFDataManager, .*FewShotViews in front of it"):
        semantic_method(modules["PixelNeRFConfig"]["PixelNeRF"], name="x", description="d")
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    example = ModuleType("example_of_a_plugin")
    monkeypatch.setitem(sys.modules, example.__name__, example)
    (code,) = (block for block in code_blocks((DOCS / "any-method.md").read_text(), "python") if "PixelNeRF" in block)
    exec(code, vars(example))
    config = example.diet_pixelnerf.config.pipeline
    config.model = replace(config.model, **SMALL["nerfacto"])
    config.semantic = SemanticConfig(every=2, resolution=16, rays_per_chunk=100)
    config.datamanager.dataparser = BlenderDataParserConfig(data=tiny_scene, alpha_color="white")
    config.datamanager.num_views, config.datamanager.train_num_rays_per_batch = 4, 64
    pipeline = config.setup(device="cpu", test_mode="val")
    callbacks = start_training(pipeline)
    assert len(pipeline.datamanager.train_dataset) == 4 and config.datamanager.num_source_views == 1
    losses = train_step(pipeline, callbacks, 0)
    sum(losses.values()).backward()
    assert losses["semantic_loss"] > 0 and pipeline.semantic.last.gradient.abs().max() > 0
    assert dict(pipeline.model.named_parameters())[COLOURS["nerfacto"]].grad.abs().max() > 0


class CountsSamples(NerfactoModel):
    """Stands in for instant-ngp, whose occupancy grid needs CUDA: it says how many samples a batch had."""

    def get_metrics_dict(self, outputs, batch):
        return super().get_metrics_dict(outputs, batch) | {"num_samples_per_batch": 8 * len(outputs["rgb"])}


def test_the_number_of_rays_follows_the_number_of_samples(monkeypatch, tiny_scene):
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: FakeEncoder())
    config = semantic_method(method_configs["instant-ngp"], name="x", description="d").config.pipeline
    config.model = replace(method_configs["nerfacto"].pipeline.model, _target=CountsSamples, **SMALL["nerfacto"])
    config.semantic = SemanticConfig(every=1, resolution=16)
    config.datamanager.dataparser = BlenderDataParserConfig(data=tiny_scene)
    config.target_num_samples, config.max_num_samples_per_ray = 800, 10
    pipeline = config.setup(device="cpu", test_mode="val")
    callbacks = start_training(pipeline)
    batches = []
    assert pipeline.semantic.rays_per_chunk == config.datamanager.train_num_rays_per_batch > 80
    for step in range(2):
        outputs, losses, metrics = pipeline.get_train_loss_dict(step)
        batches.append(len(outputs["rgb"]))
        assert "semantic_loss" in losses and int(metrics["num_rays_per_batch"]) == 100
    assert callbacks and batches == [80, 100]


def test_the_methods_are_registered():
    for attribute, (original, description) in nerfstudio_methods.METHODS.items():
        name = attribute.replace("_", "-")
        config = all_methods[name]
        assert config.method_name == name and getattr(nerfstudio_methods, attribute).description == description
        assert config.pipeline.model == method_configs[original].pipeline.model
        assert config.max_num_iterations == method_configs[original].max_num_iterations


@pytest.mark.parametrize(
    "first", ["dietnerf_ns.nerfstudio_methods", "nerfstudio.configs.method_configs", "dietnerf_ns.methods"]
)
def test_modules_can_be_imported_in_any_order(first):
    code = f"import {first}; from dietnerf_ns.nerfstudio_methods import dietnerf_ngp as m; print(m.config.method_name)"
    run = partial(subprocess.run, capture_output=True, text=True, check=True)
    assert run([sys.executable, "-W", "ignore", "-c", code]).stdout.split() == ["dietnerf-ngp"]


@pytest.mark.slow
def test_ns_eval_loads_what_ns_train_has_trained(tmp_path, tiny_scene):
    small_model = [f"--pipeline.model.{name.replace('_', '-')}={value}" for name, value in SMALL["tensorf"].items()]
    ns(
        *("ns-train", "dietnerf-tensorf", "--vis", "tensorboard", "--timestamp", "run", "--max-num-iterations", "4"),
        *("--pipeline.semantic.encoder", "embedded", "--pipeline.semantic.every", "2"),
        *("--pipeline.semantic.resolution", "16", "--pipeline.datamanager.num-views", "4", *small_model),
        *("blender-data", "--data", str(tiny_scene), "--scale-factor", "1"),
        cwd=tmp_path,
    )
    (config,) = tmp_path.rglob("config.yml")
    said = ns("ns-eval", "--load-config", config, "--output-path", "metrics.json", cwd=tmp_path).stdout
    assert "PSNR" in said and "left out: lpips" in said
    assert (tmp_path / "metrics.json").exists()
