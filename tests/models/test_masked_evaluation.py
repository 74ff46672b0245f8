"""Masks restrict what evaluation counts: the real datamanager and pipeline on a small scene with masks."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.models.mipnerf import MipNerfModel
from nerfstudio.models.nerfacto import NerfactoModel
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig
from PIL import Image

from dietnerf_ns.bench.metrics import image_metrics, paper_psnr, paper_ssim
from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.models.metrics import LazyLPIPS
from dietnerf_ns.models.vanilla import DietVanillaModelConfig
from dietnerf_ns.utils.compat import lpips_replaced_by
from dietnerf_ns.utils.errors import UserError
from tests.helpers.scenes import as_transforms_json

FEW = {"num_coarse_samples": 2, "num_importance_samples": 2}
MODELS = {
    "dietnerf": (None, NerfactoModel),
    "vanilla": (DietVanillaModelConfig(**FEW), NeRFModel),
    "mipnerf": (VanillaModelConfig(_target=MipNerfModel, **FEW), MipNerfModel),
}
"""Configuration (dietnerf-tiny's if None), and the nerfstudio model that computes the metrics."""


def left(index):
    """The mask of a photo of 100 x 100 pixels: its left part, 30 to 80 columns wide."""
    mask = np.zeros((100, 100), dtype=np.uint8)
    mask[:, : 30 + 10 * index] = 255
    return mask


@pytest.fixture
def make_scene(tiny_scene, tmp_path):
    """Six photos with alpha, and their masks (none if `mask` is None)."""

    def make(mask=left):
        scene = as_transforms_json(tiny_scene, tmp_path / ("plain" if mask is None else "masked"), count=6)
        if mask is None:
            return scene
        meta = json.loads((scene / "transforms.json").read_text())
        (scene / "masks").mkdir()
        for index, frame in enumerate(meta["frames"]):
            frame["mask_path"] = f"masks/{index}.png"
            Image.fromarray(mask(index)).save(scene / frame["mask_path"])
        (scene / "transforms.json").write_text(json.dumps(meta))
        return scene

    return make


def datamanager_config(scene, scale=0.25, **settings):
    parsed = NerfstudioDataParserConfig(data=scene, downscale_factor=1)
    small = {"train_num_rays_per_batch": 64, "eval_num_rays_per_batch": 64}
    return FewShotDataManagerConfig(
        dataparser=parsed, view_indices=(0, 1, 4, 5), camera_res_scale_factor=scale, **(small | settings)
    )


@pytest.fixture
def make_pipeline(tiny_pipeline_config, make_scene):
    """The pipeline as `ns-eval` builds it; its LPIPS is the mean difference, because the network is a download."""

    def make(model="dietnerf", mask=left, scale=0.25, test_mode="test"):
        config, _ = MODELS[model]
        datamanager = datamanager_config(make_scene(mask), scale)
        config = replace(tiny_pipeline_config, datamanager=datamanager, model=config or tiny_pipeline_config.model)
        with lpips_replaced_by(LazyLPIPS):
            pipeline = config.setup(device="cpu", test_mode=test_mode)
        pipeline.model.lpips._network = lambda target, prediction: (target - prediction).abs().mean()
        return pipeline.eval()

    return make


def evaluation_views(pipeline):
    """Photo on the model's background, batch and outputs of every evaluation image."""
    for camera, batch in pipeline.datamanager.fixed_indices_eval_dataloader:
        photo = pipeline.model.blend_background(batch["image"])
        yield photo, batch, dict(pipeline.model.get_outputs_for_camera(camera))


def with_render(outputs, render):
    return outputs | {name: render for name in outputs if name.startswith("rgb")}


def by_kind(metrics, kind):
    found = [value for name, value in metrics.items() if name.endswith(kind)]
    assert found
    return found


@pytest.mark.parametrize("model", MODELS)
def test_a_render_that_is_wrong_outside_the_mask_only_is_perfect(make_pipeline, model):
    pipeline = make_pipeline(model)
    for photo, batch, outputs in evaluation_views(pipeline):
        render = torch.where(batch["mask"], photo, 1 - photo)
        metrics, _ = pipeline.model.get_image_metrics_and_images(with_render(outputs, render), batch)
        assert all(value == math.inf for value in by_kind(metrics, "psnr"))
        assert by_kind(metrics, "ssim") == pytest.approx([1.0] * len(by_kind(metrics, "ssim")), abs=1e-6)
        assert by_kind(metrics, "lpips") == [0.0] * len(by_kind(metrics, "lpips"))


@pytest.mark.parametrize("model", MODELS)
def test_psnr_is_that_of_the_pixels_inside_the_mask(make_pipeline, model):
    pipeline = make_pipeline(model)
    for photo, batch, outputs in evaluation_views(pipeline):
        metrics, _ = pipeline.model.get_image_metrics_and_images(outputs, batch)
        inside = batch["mask"][..., 0]
        for name in {"psnr", "coarse_psnr", "fine_psnr"} & metrics.keys():
            render = outputs["rgb_coarse" if "coarse" in name else "rgb" if "rgb" in outputs else "rgb_fine"]
            error = (render.clamp(0, 1) - photo)[inside].double().square().mean()
            assert metrics[name] == pytest.approx(float(-10 * error.log10()), abs=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_other_metrics_are_those_of_images_that_are_black_outside_the_mask(make_pipeline, model):
    pipeline = make_pipeline(model)
    own = MODELS[model][1].get_image_metrics_and_images
    photo, batch, outputs = next(evaluation_views(pipeline))
    metrics, _ = pipeline.model.get_image_metrics_and_images(outputs, batch)
    black = {name: value * batch["mask"] for name, value in outputs.items() if name.startswith("rgb")}
    expected, _ = own(pipeline.model, outputs | black, {"image": photo * batch["mask"]})
    for kind in ("ssim", "lpips"):
        assert set(by_kind(metrics, kind)) == set(by_kind(expected, kind))


@pytest.mark.parametrize("model", MODELS)
def test_without_masks_metrics_and_images_are_nerfstudios_to_the_bit(make_pipeline, model):
    pipeline = make_pipeline(model, mask=None)
    own = MODELS[model][1].get_image_metrics_and_images
    for _, batch, outputs in evaluation_views(pipeline):
        assert "mask" not in batch
        metrics, images = pipeline.model.get_image_metrics_and_images(outputs, batch)
        expected, expected_images = own(pipeline.model, outputs, batch)
        assert {name: metrics[name] for name in expected} == expected
        assert images.keys() == expected_images.keys()
        assert all(torch.equal(images[name], expected_images[name]) for name in images)


@pytest.mark.parametrize("model", MODELS)
def test_the_images_are_whole(make_pipeline, model):
    pipeline = make_pipeline(model)
    photo, batch, outputs = next(evaluation_views(pipeline))
    _, images = pipeline.model.get_image_metrics_and_images(outputs, batch)
    width = photo.shape[1]
    assert torch.equal(images["img"][:, :width], photo)
    render = outputs["rgb" if "rgb" in outputs else "rgb_fine"]
    assert torch.equal(images["img"][:, -width:], render)


@pytest.mark.parametrize("scale, size", [(1.0, 100), (0.5, 50), (0.33, 33)])
def test_masks_have_the_size_of_the_scaled_photos(make_pipeline, scale, size):
    pipeline = make_pipeline(scale=scale)
    for (_, batch), index in zip(pipeline.datamanager.fixed_indices_eval_dataloader, (2, 3), strict=True):
        mask = batch["mask"]
        assert mask.dtype == torch.bool and mask.shape == (size, size, 1) and batch["image"].shape[:2] == (size, size)
        share = float(mask.float().mean())
        assert share == pytest.approx((30 + 10 * index) / 100, abs=1 / size)
        grey = torch.full((size, size, 3), 0.5)
        outputs = {"accumulation": grey[..., :1], "depth": grey[..., :1], "prop_depth_0": grey[..., :1]}
        outputs |= {f"prop_depth_{i}": grey[..., :1] for i in range(pipeline.model.config.num_proposal_iterations)}
        white = {"image": torch.ones(size, size, 3), "mask": mask}
        metrics, _ = pipeline.model.get_image_metrics_and_images(outputs | {"rgb": grey}, white)
        assert metrics["psnr"] == pytest.approx(-20 * math.log10(0.5), abs=1e-4), "whatever the mask's share"


def test_ns_evals_means_do_not_depend_on_what_is_outside_the_masks(make_pipeline, monkeypatch):
    pipeline = make_pipeline()
    render = pipeline.model.get_outputs_for_camera
    masks = iter(())

    def average(disturbed):
        nonlocal masks
        masks = (batch["mask"] for _, batch in list(pipeline.datamanager.fixed_indices_eval_dataloader))

        def broken(camera):
            outputs, inside = render(camera), next(masks)
            hit = {"nothing": inside & ~inside, "outside": ~inside, "inside": inside}[disturbed]
            return outputs | {"rgb": torch.where(hit, 1 - outputs["rgb"], outputs["rgb"])}

        monkeypatch.setattr(pipeline.model, "get_outputs_for_camera", broken)
        metrics = pipeline.get_average_eval_image_metrics(get_std=True)
        return {name: metrics[name] for name in ("psnr", "ssim", "lpips")}

    assert average("outside") == average("nothing")
    different = average("inside")
    assert all(different[name] != value for name, value in average("nothing").items())


def test_evaluation_losses_take_rays_inside_the_masks_only(make_pipeline):
    datamanager = make_pipeline().datamanager
    masks = {}
    for index in range(len(datamanager.eval_dataset)):
        masks[index] = datamanager.eval_dataset[index]["mask"]
    for step in range(5):
        _, batch = datamanager.next_eval(step)
        assert all(masks[int(photo)][row, column] for photo, row, column in batch["indices"])


def said_while_building(config, test_mode, capsys):
    capsys.readouterr()
    config.setup(test_mode=test_mode)
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("test_mode", ["val", "test"], ids=["ns-train", "ns-eval"])
def test_one_line_says_what_counts(make_scene, test_mode, capsys):
    config = datamanager_config(make_scene(), scale=1.0)
    said = said_while_building(config, test_mode, capsys)
    assert (
        "Masks: all 4 training photos have one (55% of the pixels inside), all 2 evaluation photos have one (55% of "
        "the pixels inside). Pixels outside the masks are not counted in evaluation."
    ) in said
    assert said.count("Masks:") == 1


def test_nothing_is_said_about_masks_that_nobody_has_or_opens(make_scene, capsys):
    assert "Masks" not in said_while_building(datamanager_config(make_scene(None)), "test", capsys)
    assert "Masks" not in said_while_building(datamanager_config(make_scene()), "inference", capsys)


def test_an_evaluation_photo_whose_mask_is_black_everywhere_is_named(make_scene):
    scene = make_scene(lambda index: left(index) * (index != 3))
    with pytest.raises(UserError, match=r"images/3\.png: the mask of this evaluation photo is black everywhere"):
        datamanager_config(scene).setup(test_mode="val")


def test_a_training_photo_whose_mask_is_black_everywhere_is_no_error(make_scene, capsys):
    scene = make_scene(lambda index: left(index) * (index != 5))
    said = said_while_building(datamanager_config(scene, scale=1.0), "val", capsys)
    assert "all 4 training photos have one (35% of the pixels inside)" in said


def test_photos_that_are_all_trained_on_have_no_masks_in_evaluation(make_scene, capsys):
    config = replace(datamanager_config(make_scene(), scale=1.0), view_indices=None)
    said = said_while_building(config, "test", capsys)
    assert "Masks: all 6 training photos have one (55% of the pixels inside). Pixels outside" in said


def test_the_benchmarks_metrics_count_the_same_pixels_as_evaluation():
    generator = torch.Generator().manual_seed(0)
    photo, render = torch.rand(2, 20, 30, 3, generator=generator)
    mask = torch.zeros(20, 30, 1, dtype=torch.bool)
    mask[:, :12] = True
    psnr, ssim = (metric for metric in image_metrics({}, torch.device("cpu")) if metric.name.endswith(("psnr", "ssim")))
    inside = psnr(photo, render, mask)["paper/psnr"]
    assert inside == pytest.approx(paper_psnr(photo[:, :12], render[:, :12]), abs=1e-4)
    black = [torch.where(mask, image, 0) for image in (photo, render)]
    assert ssim(photo, render, mask)["paper/ssim"] == pytest.approx(paper_ssim(*black), abs=1e-6)
    wrong_outside = torch.where(mask, render, 1 - render)
    assert psnr(photo, wrong_outside, mask) == {"paper/psnr": inside}
    assert psnr(photo, wrong_outside)["paper/psnr"] != pytest.approx(inside, abs=0.01)
