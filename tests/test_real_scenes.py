"""What the automatic choices make of real captures; skipped where the scenes are not on the machine."""

from dataclasses import replace

import pytest
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

from dietnerf_ns.fields.contraction import FrontFacingContraction
from dietnerf_ns.geometry.cameras import cameras_surround_scene
from dietnerf_ns.geometry.sphere import fit_sphere
from tests.helpers.scenes import shared_scene


def pipeline_of(config, dataparser, **views):
    datamanager = replace(config.datamanager, dataparser=dataparser, **views)
    return replace(config, datamanager=datamanager).setup(device="cpu", test_mode="test")


def test_lego_by_protocol(tiny_pipeline_config):
    dataparser = BlenderDataParserConfig(data=shared_scene("lego"))
    pipeline = pipeline_of(tiny_pipeline_config, dataparser, protocol="blender-8", camera_res_scale_factor=0.25)
    dataset = pipeline.datamanager.train_dataset
    frames = [int(path.stem.removeprefix("r_")) for path in dataset.image_filenames]
    assert frames == [26, 86, 2, 55, 75, 93, 16, 73]
    assert len(pipeline.datamanager.eval_dataset) == 25
    assert dataset.get_image_float32(0).shape == (100, 100, 3)
    sphere = fit_sphere(dataset.cameras.camera_to_worlds)
    assert sphere.center.abs().max() < 1e-3, "NeRF-Synthetic cameras look at the origin"
    assert sphere.up.tolist() == pytest.approx([0, 0, 1], abs=1e-3)
    assert sphere.radius_range == pytest.approx((4.03, 4.03), abs=0.01)


def test_fern_is_front_facing(tiny_pipeline_config):
    dataparser = NerfstudioDataParserConfig(data=shared_scene("fern"))
    pipeline = pipeline_of(tiny_pipeline_config, dataparser, num_views=6, camera_res_scale_factor=0.5)
    assert len(pipeline.datamanager.train_dataset) == 6 and len(pipeline.datamanager.eval_dataset) == 3
    assert not cameras_surround_scene(pipeline.datamanager.train_dataset.cameras.camera_to_worlds)
    contraction = pipeline.model.field.spatial_distortion
    assert isinstance(contraction, FrontFacingContraction)
    nearest_content = 3.33  # 16.985, the least bound in fern's poses_bounds.npy, times the dataparser's scale 0.196
    assert 0.25 * nearest_content < pipeline.model.collider.near_plane < nearest_content
