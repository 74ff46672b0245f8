"""Runs of version 0.1, whose files name other modules and keep the background under another key."""

import copy
from dataclasses import replace

import pytest
import torch
import yaml
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers
from nerfstudio.field_components.spatial_distortions import SceneContraction

import dietnerf_ns.methods  # noqa: F401  registers the old paths
from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.data.pixel_samplers import ForegroundPixelSampler, ForegroundPixelSamplerConfig
from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.training.checkpoints import EXTRA_STATE, check_complete, keep_settings, order_moments
from dietnerf_ns.training.optimizers import FusedAdamConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.scenes import as_transforms_json

OLD_CONFIG = """
!!python/object:dietnerf_ns.datamanager.FewShotDataManagerConfig
num_views: 5
pixel_sampler: !!python/object:dietnerf_ns.pixels.SubjectPixelSamplerConfig
  _target: !!python/name:dietnerf_ns.pixels.SubjectPixelSampler ''
  subject_share: 0.8
"""


def test_a_configuration_with_the_old_class_paths_is_read():
    config = yaml.load(OLD_CONFIG, Loader=yaml.Loader)
    assert isinstance(config, FewShotDataManagerConfig) and config.num_views == 5
    assert isinstance(config.pixel_sampler, ForegroundPixelSamplerConfig) and config.pixel_sampler.subject_share == 0.8
    assert config.pixel_sampler._target is ForegroundPixelSampler


def test_the_background_of_an_old_checkpoint_is_found(tiny_pipeline_config, tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "scene", count=4)
    manager = replace(tiny_pipeline_config.datamanager, dataparser=NerfstudioDataParserConfig(data=scene), data=None)
    config = replace(tiny_pipeline_config, datamanager=manager)
    state = config.setup(device="cpu", test_mode="val").state_dict()
    kept = state[EXTRA_STATE].pop("capture")
    state[EXTRA_STATE]["one_background"] = kept["background"]
    rendering = config.setup(device="cpu", test_mode="inference")
    rendering.load_pipeline(state, step=0)
    assert isinstance(rendering.model.field.spatial_distortion, ObjectBox)
    assert torch.allclose(rendering.model.renderer_rgb.background_color, torch.tensor(kept["background"]))


@pytest.mark.parametrize("scene", ["auto", "around"])
def test_a_scene_with_surroundings_of_version_0_2_is_loaded_into_the_space_it_was_trained_in(
    scene, tiny_pipeline_config, tiny_scene, tmp_path
):
    data = as_transforms_json(tiny_scene, tmp_path / "scene", count=4)
    manager = replace(tiny_pipeline_config.datamanager, dataparser=NerfstudioDataParserConfig(data=data), data=None)
    model = replace(tiny_pipeline_config.model, scene="inside-out", near_plane=None, far_plane=None)
    config = replace(tiny_pipeline_config, datamanager=manager, model=model)
    state = config.setup(device="cpu", test_mode="val").state_dict()
    config.model = copy.copy(config.model)
    config.model.__setstate__({k: v for k, v in vars(model).items() if k != "space_annealing"} | {"scene": scene})
    rendering = config.setup(device="cpu", test_mode="inference")
    rendering.load_pipeline(state, step=0)
    assert type(rendering.model.field.spatial_distortion) is SceneContraction
    assert rendering.model.config.average_init_density == 0.01


def test_planes_of_version_0_2_and_their_moments_are_brought_into_todays_order(tiny_pipeline_config):
    pipeline = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    planes = pipeline.model.field.encoding.levels[0].features
    name = "_model.field.mlp_base.0.levels.0.features"
    state = pipeline.state_dict()
    in_image_order = {key: value.permute(0, 3, 1, 2) for key, value in state.items() if key.endswith(".features")}
    old = {key.replace(".features", ".plane_coef"): in_image_order.get(key, value) for key, value in state.items()}
    images = torch.randn(planes.permute(0, 3, 1, 2).shape)
    old[name.replace(".features", ".plane_coef")] = images
    pipeline.load_pipeline(old, step=0)
    assert planes[1, 2, 3].tolist() == images[1, :, 2, 3].tolist()
    optimizers = Optimizers({"fields": {"optimizer": AdamOptimizerConfig(), "scheduler": None}}, {"fields": [planes]})
    moments = {"step": torch.tensor(3.0), "exp_avg": images, "exp_avg_sq": images.square()}
    optimizers.optimizers["fields"].state[planes].update(moments)
    order_moments(optimizers)
    kept = optimizers.optimizers["fields"].state[planes]
    assert torch.equal(kept["exp_avg"], planes.detach()) and torch.equal(kept["exp_avg_sq"], planes.detach().square())
    assert kept["step"] == 3


def test_a_resumed_optimizer_has_the_kernel_that_it_was_built_with():
    """GradScaler leaves the scale to a fused Adam, and Adam without fusion refuses it; version 0.2 had no fused one."""

    def optimizers(weight, **settings):
        config = {"fields": {"optimizer": FusedAdamConfig(**settings), "scheduler": None}}
        return Optimizers(config, {"fields": [weight]})

    weight = torch.nn.Parameter(torch.ones(3))
    old = optimizers(weight, fused=False).optimizers["fields"]
    weight.grad = torch.ones(3)
    old.step()
    resumed = optimizers(weight)
    built = resumed.optimizers["fields"]
    assert built.defaults["fused"]
    built.load_state_dict(old.state_dict())
    assert not built.param_groups[0]["fused"], "torch takes it from the checkpoint"
    keep_settings(resumed)
    assert built.param_groups[0]["fused"] and built.state[weight]["step"].dtype == torch.float32
    built.grad_scale, built.found_inf = torch.tensor(1.0), torch.tensor(0.0)  # as GradScaler sets them
    built.step()
    assert built.state[weight]["step"] == 2


def test_an_incomplete_checkpoint_is_refused_in_one_line():
    check_complete({"module.a": 1, "b": 2}, {"a": 1, "b": 2})
    with pytest.raises(UserError, match="lacks 1 parts, such as c"):
        check_complete({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3})
