"""Near and far planes and a background colour that contradict the photos."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.methods import dietnerf_vanilla
from dietnerf_ns.models.agreement import check_planes, planes_around
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.scenes import as_transforms_json

WHITE, BLACK = torch.ones(3), torch.zeros(3)


def model_of(config, dataparser, *, test_mode="val", **settings):
    config = copy.deepcopy(config)
    datamanager = replace(config.datamanager, dataparser=dataparser, data=None)
    model = replace(config.model, **settings)
    return replace(config, datamanager=datamanager, model=model).setup(device="cpu", test_mode=test_mode)


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def composed(scene, colour):
    """The photos of a scene without transparency, on a colour."""
    for path in (*scene.rglob("*.png"),):
        image = Image.open(path).convert("RGBA")
        Image.alpha_composite(Image.new("RGBA", image.size, (*colour, 255)), image).convert("RGB").save(path)
    return scene


def scaled(scene, factor):
    for file in scene.glob("transforms_*.json"):
        meta = json.loads(file.read_text())
        for frame in meta["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[3] *= factor
        file.write_text(json.dumps(meta))
    return scene


@pytest.mark.parametrize("color", ["black", "random", "last_sample"])
@pytest.mark.parametrize("kind", ["blender", "nerfstudio"])
def test_a_background_that_opaque_photos_do_not_have_is_not_used(
    color, kind, tiny_pipeline_config, tiny_scene, tmp_path, capsys
):
    dataparser = BlenderDataParserConfig(data=tiny_scene)  # which puts transparency on white
    if kind == "nerfstudio":
        scene = composed(as_transforms_json(tiny_scene, tmp_path / "scene", count=4), (255, 255, 255))
        dataparser = NerfstudioDataParserConfig(data=scene, downscale_factor=1)
    pipeline = model_of(tiny_pipeline_config, dataparser, background_color=color)
    assert f"background-color {color} is not the photos' background, which is RGB (1.00, 1.00, 1.00)" in said(capsys)
    assert torch.equal(pipeline.model.renderer_rgb.background_color, WHITE)


@pytest.mark.parametrize("color", ["black", "white", "random", "last_sample"])
def test_transparent_photos_are_put_on_the_background_that_is_given(
    color, tiny_pipeline_config, tiny_scene, tmp_path, capsys
):
    scene = as_transforms_json(tiny_scene, tmp_path / "scene", count=4)
    dataparser = NerfstudioDataParserConfig(data=scene, downscale_factor=1)
    pipeline = model_of(tiny_pipeline_config, dataparser, background_color=color)
    assert pipeline.model.renderer_rgb.background_color == color
    assert "is not the photos' background" not in said(capsys)


def test_blender_data_on_black_agrees_with_its_alpha_color(tiny_pipeline_config, tiny_scene, capsys):
    on_black = BlenderDataParserConfig(data=tiny_scene, alpha_color="black")
    pipeline = model_of(tiny_pipeline_config, on_black, background_color="black")
    assert pipeline.model.renderer_rgb.background_color == "black"
    assert "is not the photos' background" not in said(capsys)


@pytest.mark.parametrize("colour", [(0, 0, 0), (0, 128, 255)])
def test_blender_datas_white_gives_way_to_the_photos_also_in_rendering(
    colour, tiny_pipeline_config, tiny_scene, tmp_path, capsys
):
    scene = composed(shutil.copytree(tiny_scene, tmp_path / "scene"), colour)
    trained = model_of(tiny_pipeline_config, BlenderDataParserConfig(data=scene))
    assert "background-color white is not the photos' background" in said(capsys)
    rendering = model_of(tiny_pipeline_config, BlenderDataParserConfig(data=scene), test_mode="inference")
    rendering.load_pipeline(trained.state_dict(), step=0)
    for pipeline in (trained, rendering):
        background = pipeline.model.renderer_rgb.background_color
        assert torch.allclose(background, torch.tensor(colour) / 255, atol=1e-6)


def test_the_shipped_scenes_settings_stay_as_they_are(tiny_pipeline_config, capsys):
    model = tiny_pipeline_config.setup(device="cpu", test_mode="val").model
    assert (model.collider.near_plane, model.collider.far_plane) == (2.0, 6.0)
    assert model.renderer_rgb.background_color == "white" and model.config.average_init_density == 1.0
    assert "photos' background" not in (words := said(capsys)) and "Near plane" not in words


@pytest.mark.parametrize("factor", [0.1, 0.5, 10.0])
def test_planes_and_box_follow_the_unit_of_length_also_in_rendering(
    factor, tiny_pipeline_config, tiny_scene, tmp_path, capsys
):
    usual = tiny_pipeline_config.setup(device="cpu", test_mode="val").model.collider.box
    scene = scaled(shutil.copytree(tiny_scene, tmp_path / "scene"), factor)
    trained = model_of(tiny_pipeline_config, BlenderDataParserConfig(data=scene))
    assert "the object does not lie between 2 and 6" in said(capsys)
    near, far, box = trained.model.collider.near_plane, trained.model.collider.far_plane, trained.model.collider.box
    assert torch.allclose(box.half_sizes, factor * usual.half_sizes, rtol=0.02)
    assert torch.allclose(box.center, factor * usual.center, atol=0.03 * factor)
    assert near == pytest.approx(2 * factor, rel=0.02) and far == pytest.approx(6 * factor, rel=0.06)
    assert trained.model.config.average_init_density == pytest.approx(1 / factor, rel=0.06)
    rendering = model_of(tiny_pipeline_config, BlenderDataParserConfig(data=scene), test_mode="inference")
    rendering.load_pipeline(trained.state_dict(), step=0)
    assert (rendering.model.collider.near_plane, rendering.model.collider.far_plane) == (near, far)
    places = box.center + 0.2 * factor * torch.rand(9, 3, generator=torch.Generator().manual_seed(0))
    for one, other in zip(networks_of(rendering.model), networks_of(trained.model), strict=True):
        assert torch.equal(one.density_fn(places), other.density_fn(places))


def test_the_box_follows_the_unit_of_length_without_silhouettes(tiny_pipeline_config, tiny_scene, tmp_path):
    scene = scaled(shutil.copytree(tiny_scene, tmp_path / "scene"), 10.0)
    settings = {"camera_optimizer": CameraOptimizerConfig(mode="SO3xR3")}  # with which no box is fitted
    box = model_of(tiny_pipeline_config, BlenderDataParserConfig(data=scene), **settings).model.collider.box
    assert 14 < float(box.half_sizes.max()) < 15.5


def networks_of(model):
    return [model.field, *model.proposal_networks]


def test_planes_behind_the_object_are_one_line(tiny_pipeline_config, tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "scene", count=4)
    dataparser = NerfstudioDataParserConfig(data=scene, downscale_factor=1)
    with pytest.raises(UserError, match=r"near-plane 2 and far-plane 6: nothing of what the photos show lies between"):
        model_of(tiny_pipeline_config, dataparser, near_plane=2.0, far_plane=6.0)
    with pytest.raises(UserError, match=r"near-plane 0.05 and far-plane 0.3: nothing"):
        model_of(tiny_pipeline_config, dataparser, far_plane=0.3, scene="around")


def test_planes_that_cut_through_the_object_are_said(tiny_pipeline_config, tiny_scene, capsys):
    model_of(tiny_pipeline_config, BlenderDataParserConfig(data=tiny_scene), near_plane=4.0)
    assert "Near plane 4 and far plane 6 cut through the object in 8 of 8 photos" in said(capsys)
    model_of(tiny_pipeline_config, BlenderDataParserConfig(data=tiny_scene), near_plane=2.5)
    assert "cut through" not in said(capsys)


def test_the_papers_planes_before_other_cameras_are_said(tiny_scene, tmp_path, capsys):
    scene = as_transforms_json(tiny_scene, tmp_path / "scene", count=4)
    dataparser = NerfstudioDataParserConfig(data=scene, downscale_factor=1)
    model_of(dietnerf_vanilla.config.pipeline, dataparser)
    words = said(capsys)
    assert "--pipeline.model.collider-params near_plane 2 far_plane 6: nothing of what the photos show lies" in words
    model_of(dietnerf_vanilla.config.pipeline, BlenderDataParserConfig(data=tiny_scene))
    assert "collider-params" not in (words := said(capsys)) and "photos' background" not in words
    model_of(
        copy.deepcopy(dietnerf_vanilla.config.pipeline),
        BlenderDataParserConfig(data=tiny_scene),
        background_color="black",
    )
    assert "background-color black is not the photos' background" in said(capsys)


def test_planes_are_kept_as_long_as_they_enclose_the_object():
    box = ObjectBox(torch.eye(3), torch.zeros(3), torch.tensor([0.8, 0.8, 0.8]))
    cameras = pinhole_cameras(ring_of_poses(5, radius=4.0))
    assert planes_around(box, cameras, (2.0, 6.0)) == (2.0, 6.0)
    assert planes_around(box, cameras, (3.1, 6.0)) == pytest.approx((2.0, 6.0), rel=1e-4)
    check_planes(box, cameras, (3.1, 6.0), is_fitted=True)
    with pytest.raises(UserError, match="the cameras are 4 from the middle"):
        check_planes(box, cameras, (0.1, 2.0), is_fitted=True)


def test_planes_that_nobody_gave_do_not_cut_images_of_a_fitted_box(tiny_pipeline_config):
    fitted = tiny_pipeline_config.setup(device="cpu", test_mode="val").model
    assert not fitted.collider.planes_cut_images
    viewed = tiny_pipeline_config.setup(device="cpu", test_mode="inference").model
    assert viewed.collider.planes_cut_images, "it opens no photos, and does not know yet"
    viewed.set_extra_state(fitted.get_extra_state())
    assert not viewed.collider.planes_cut_images
    tiny_pipeline_config.model.near_plane = 2.1
    assert tiny_pipeline_config.setup(device="cpu", test_mode="val").model.collider.planes_cut_images
