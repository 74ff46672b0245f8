import json
import shutil
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.pixel_samplers import PatchPixelSampler, PatchPixelSamplerConfig
from PIL import Image

from dietnerf_ns.data import dataset as photos
from dietnerf_ns.data.capture import Capture
from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.data.pixel_samplers import SinglePhotoPixelSamplerConfig
from dietnerf_ns.semantic.consistency import embed_photos
from dietnerf_ns.training.collapse import photo_variance
from dietnerf_ns.utils.errors import UserError
from tests.helpers.encoders import FakeEncoder
from tests.helpers.scenes import as_transforms_json


def datamanager(dataparser, test_mode="test", **settings):
    return FewShotDataManagerConfig(dataparser=dataparser, **settings).setup(test_mode=test_mode)


@pytest.fixture(params=["blender", "nerfstudio", "instant-ngp"])
def dataparser(request, tiny_scene, tmp_path):
    if request.param == "blender":
        return BlenderDataParserConfig(data=tiny_scene)
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=8)
    kind = NerfstudioDataParserConfig if request.param == "nerfstudio" else InstantNGPDataParserConfig
    settings = {"downscale_factor": 1} if request.param == "nerfstudio" else {}
    return kind(data=scene, eval_mode="interval", **settings) if request.param == "nerfstudio" else kind(data=scene)


@pytest.mark.parametrize("strategy", ["first", "random", "farthest"])
def test_views_are_selected_whatever_the_dataparser(dataparser, strategy):
    everything = dataparser.setup().get_dataparser_outputs("train")
    manager = datamanager(dataparser, num_views=4, view_strategy=strategy)
    assert len(manager.train_dataset) == len(set(manager.view_indices)) == 4
    for kept, index in enumerate(manager.view_indices):
        assert manager.train_dataset.image_filenames[kept] == everything.image_filenames[index]
        assert torch.equal(
            manager.train_dataset.cameras[kept].camera_to_worlds, everything.cameras[index].camera_to_worlds
        )
    rays, batch = manager.next_train(0)
    assert set(batch["indices"][:, 0].tolist()) <= set(range(4))
    assert len(rays) == manager.get_train_rays_per_batch()


def test_selection_depends_on_the_configuration_alone(dataparser):
    config = FewShotDataManagerConfig(dataparser=dataparser, num_views=3, view_strategy="random", view_seed=5)
    torch.manual_seed(1)
    first = config.setup(test_mode="test").view_indices
    torch.manual_seed(2)
    assert config.setup(test_mode="test").view_indices == first


def test_the_dataparsers_eval_images_are_kept_whole(tiny_scene):
    manager = datamanager(BlenderDataParserConfig(data=tiny_scene), num_views=2)
    assert len(manager.eval_dataset) == 25


def test_few_photos_without_an_eval_split_evaluate_on_the_unused_ones(tiny_scene, tmp_path, capsys):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=7)
    manager = datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1), num_views=5)
    assert len(manager.train_dataset) == 5 and len(manager.eval_dataset) == 2
    assert not set(manager.train_dataset.image_filenames) & set(manager.eval_dataset.image_filenames)
    assert "2 unused training views" in capsys.readouterr().out


def test_photos_that_are_all_trained_on_leave_a_clear_word(tiny_scene, tmp_path, capsys):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=6)
    manager = datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1), test_mode="val")
    assert len(manager.train_dataset) == 6 and len(manager.eval_dataset) == 0 and not manager.has_eval_images
    said = " ".join(capsys.readouterr().out.split())
    assert "no evaluation images" in said and "--eval-mode filename" in said


def test_log_names_views_and_coverage(tiny_scene, capsys):
    datamanager(BlenderDataParserConfig(data=tiny_scene), view_indices=(6, 1))
    said = " ".join(capsys.readouterr().out.split())
    assert "Training views: 2 of 8 (r_6.png, r_1.png); direction coverage 0.13" in said


def test_missing_data_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        datamanager(BlenderDataParserConfig(data=tmp_path / "nowhere"))
    with pytest.raises(UserError, match="transforms_train.json"):
        datamanager(BlenderDataParserConfig(data=tmp_path))


@pytest.fixture
def scene_of_104_views(tiny_scene, tmp_path):
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    meta = json.loads((scene / "transforms_train.json").read_text())
    (scene / "transforms_train.json").write_text(json.dumps(meta | {"frames": meta["frames"] * 13}))
    return scene


def test_a_scene_that_a_protocol_was_not_published_for_is_told(scene_of_104_views, capsys):
    datamanager(BlenderDataParserConfig(data=scene_of_104_views), protocol="blender-8")
    said = " ".join(capsys.readouterr().out.split())
    assert "Protocol blender-8: view 26 of this training split is r_2.png" in said
    assert "This run has 4, of which 4" in said and "This run is at 100x100" in said


def test_a_protocol_does_not_do_without_its_test_split(scene_of_104_views):
    scene = scene_of_104_views
    (scene / "transforms_test.json").unlink()
    with pytest.raises(UserError, match="evaluates the test split"):
        datamanager(BlenderDataParserConfig(data=scene), protocol="blender-8")


def test_incomplete_split_lists_are_one_clear_error(tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=6)
    meta = json.loads((scene / "transforms.json").read_text())
    (scene / "transforms.json").write_text(json.dumps(meta | {"val_filenames": ["images/0.png"]}))
    with pytest.raises(UserError, match="split train is missing"):
        datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda text: text[:-20],
        lambda text: text.replace('"frames"', '"photos"'),
        lambda text: text.replace('"transform_matrix"', '"pose"'),
        lambda text: json.dumps(
            json.loads(text) | {"frames": [{"file_path": "images/0.png", "transform_matrix": [[1], []]}]}
        ),
    ],
    ids=["cut off", "no frames", "no poses", "ragged pose"],
)
def test_a_broken_transforms_json_is_one_clear_error(break_it, tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=6)
    file = scene / "transforms.json"
    file.write_text(break_it(file.read_text()))
    with pytest.raises(UserError, match=r"photos/transforms\.json: "):
        datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1))


@pytest.mark.parametrize("count, apart", [(1, 0.0), (3, 0.0), (3, 1e-15)])
def test_photos_from_one_position_train_and_keep_their_scale(count, apart, tiny_scene, tmp_path, capsys):
    """Dividing by the largest distance from the mean position gives infinity or rounding error, as LAPACK has it."""
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=count)
    file = scene / "transforms.json"
    meta = json.loads(file.read_text())
    for index, frame in enumerate(meta["frames"]):
        for row, position in zip(frame["transform_matrix"], (1.0 + index * apart, 2.0, 3.0), strict=False):
            row[3] = position
    file.write_text(json.dumps(meta))
    manager = datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1), test_mode="val")
    assert "All cameras are at one position" in " ".join(capsys.readouterr().out.split())
    assert manager.train_dataparser_outputs.dataparser_scale == 1.0
    assert len(manager.train_dataset) == count
    assert manager.train_dataset.cameras.camera_to_worlds[:, :, 3].abs().max() < 1e-3
    rays, batch = manager.next_train(0)
    assert len(rays) == len(batch["image"])


def test_an_error_of_our_own_code_does_not_accuse_the_dataparser(tiny_scene, monkeypatch):
    def broken(dataset):
        raise TypeError("a bug of ours")

    monkeypatch.setattr(Capture, "of_photos", broken)
    with pytest.raises(TypeError, match="a bug of ours"):
        datamanager(BlenderDataParserConfig(data=tiny_scene))


def test_a_photo_that_cannot_be_decoded_is_named(tiny_scene, tmp_path):
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    photo = scene / "train" / "r_3.png"
    photo.write_bytes(photo.read_bytes()[:300])
    with pytest.raises(UserError, match=r"r_3\.png: this image cannot be read: image file is truncated"):
        datamanager(BlenderDataParserConfig(data=scene))


def test_a_missing_mask_names_its_photo(tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=6)
    meta = json.loads((scene / "transforms.json").read_text())
    for frame in meta["frames"]:
        frame["mask_path"] = f"masks/{Path(frame['file_path']).name}"
    (scene / "transforms.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=r"masks/0\.png: there is no such file"):
        datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1), test_mode="val")


def test_a_dataparser_that_cannot_be_built_is_one_clear_error(tiny_scene, monkeypatch):
    def broken(self, config):
        raise KeyError("scale")

    monkeypatch.setattr(NerfstudioDataParserConfig()._target, "__init__", broken)
    with pytest.raises(UserError, match="The dataparser cannot read .*: KeyError: 'scale'"):
        datamanager(NerfstudioDataParserConfig(data=tiny_scene))


def test_each_training_photo_is_decoded_once(tiny_scene, tmp_path, monkeypatch):
    opened = Counter()
    real_read = photos.read_photo

    def counting_read(path, *arguments, **settings):
        opened[path.name] += 1
        return real_read(path, *arguments, **settings)

    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=8)
    parsed = NerfstudioDataParserConfig(data=scene, downscale_factor=1)
    manager = datamanager(parsed, num_views=5, test_mode="inference")
    kept = [path.name for path in manager.train_dataset.image_filenames]
    monkeypatch.setattr(photos, "read_photo", counting_read)
    manager = datamanager(parsed, num_views=5, test_mode="val")
    manager.next_train(0)
    photo_variance(manager.train_dataset, lambda image: image[..., :3], manager.train_pixel_sampler)
    embed_photos(FakeEncoder(), manager.train_dataset, lambda image: image[..., :3], torch.device("cpu"))
    assert {name: opened[name] for name in kept} == dict.fromkeys(kept, 1)


def test_photos_beyond_the_memory_limit_are_decoded_again(tiny_scene, monkeypatch):
    monkeypatch.setattr(photos, "KEPT_BYTES", 2 * 100 * 100 * 4)
    kept = datamanager(BlenderDataParserConfig(data=tiny_scene), test_mode="inference").train_dataset
    first, again = ([kept.get_numpy_image(index) for index in range(3)] for _ in range(2))
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False]
    assert (first[2] == again[2]).all()


def test_a_blender_scene_without_validation_split_trains(tiny_scene, tmp_path):
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    (scene / "transforms_val.json").unlink()
    manager = datamanager(BlenderDataParserConfig(data=scene), test_mode="val", num_views=6)
    assert len(manager.eval_dataset) == 25 and manager.eval_dataset.image_filenames[0].parent.name == "test"


def edited(scene, edit):
    """The same scene, whose transforms.json is changed in place by `edit`."""
    file = scene / "transforms.json"
    meta = json.loads(file.read_text())
    edit(meta)
    file.write_text(json.dumps(meta))
    return NerfstudioDataParserConfig(data=scene, downscale_factor=1)


def spoken(capsys):
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("listed, missing, test_mode", [("val", "test", "test"), ("test", "val", "val")])
def test_an_evaluation_split_that_is_not_listed_is_replaced_by_the_other(
    listed, missing, test_mode, tiny_scene, tmp_path, capsys
):
    def edit(meta):
        paths = [frame["file_path"] for frame in meta["frames"]]
        meta |= {"train_filenames": paths[:5], f"{listed}_filenames": paths[5:]}

    parsed = edited(as_transforms_json(tiny_scene, tmp_path / "photos", count=7), edit)
    manager = datamanager(parsed, test_mode=test_mode)
    assert [path.name for path in manager.eval_dataset.image_filenames] == ["5.png", "6.png"]
    assert f"the {missing} split has no images or no file; the {listed} split is evaluated instead" in spoken(capsys)


@pytest.mark.parametrize("kept, told", [((), "the val split is evaluated instead"), ((1, 2), "there is no .*r_0.png")])
def test_a_split_without_photos_is_replaced_and_one_without_some_is_an_error(kept, told, tiny_scene, tmp_path, capsys):
    """As after a download that was cut off: other photos than asked for must not be evaluated without a word."""
    shutil.copytree(tiny_scene, tmp_path / "scene")
    for photo in (tmp_path / "scene" / "test").glob("*.png"):
        if int(photo.stem.removeprefix("r_")) not in kept:
            photo.unlink()
    with pytest.raises(UserError, match=told) if kept else nullcontext():
        datamanager(BlenderDataParserConfig(data=tmp_path / "scene"))
    assert kept or told in spoken(capsys)


@pytest.mark.parametrize("in_its_folder", ["training photos", "broken links"])
def test_a_split_without_photos_is_replaced_wherever_its_photos_would_be(in_its_folder, tiny_scene, tmp_path, capsys):
    """As cameras of a path among the training photos, or as git-annex leaves what was not fetched."""
    shutil.copytree(tiny_scene, tmp_path / "scene")
    file = tmp_path / "scene" / "transforms_test.json"
    for photo in (tmp_path / "scene" / "test").glob("*.png"):
        photo.unlink()
        photo.symlink_to("nowhere")
    if in_its_folder == "training photos":
        file.write_text(file.read_text().replace("./test/r_", "./train/path_"))
    datamanager(BlenderDataParserConfig(data=tmp_path / "scene"))
    assert "the val split is evaluated instead" in spoken(capsys)


def test_a_split_without_training_photos_is_one_clear_error(tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=6)
    with pytest.raises(
        UserError, match="photos: the training split has no photos. With nerfstudio-data, --train-split"
    ):
        datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1, train_split_fraction=0.0))


def test_a_photo_that_is_trained_on_and_evaluated_is_named(tiny_scene, tmp_path, capsys):
    def edit(meta):
        paths = [frame["file_path"] for frame in meta["frames"]]
        meta |= {"train_filenames": paths[:5], "val_filenames": paths[4:], "test_filenames": paths[5:]}

    parsed = edited(as_transforms_json(tiny_scene, tmp_path / "photos", count=7), edit)
    datamanager(parsed, test_mode="val")
    assert "Evaluation: 1 of 3 photos are trained on as well: 4.png." in spoken(capsys)
    shutil.copy(tmp_path / "photos" / "images" / "0.png", tmp_path / "photos" / "images" / "6.png")
    datamanager(parsed, test_mode="test")
    assert "Evaluation: 1 of 2 photos are trained on as well: 6.png." in spoken(capsys)
    datamanager(parsed, test_mode="inference")
    assert "trained on as well" not in spoken(capsys)


def test_a_photo_that_is_there_twice_is_named(tiny_scene, tmp_path, capsys):
    parsed = edited(
        as_transforms_json(tiny_scene, tmp_path / "photos", count=5),
        lambda meta: meta["frames"].extend(meta["frames"][:1]),
    )
    datamanager(parsed, test_mode="val")
    assert "The same photo is trained on more than once: 0.png = 0.png. It counts more" in spoken(capsys)
    for index in range(1, 5):
        shutil.copy(tmp_path / "photos" / "images" / "0.png", tmp_path / "photos" / "images" / f"{index}.png")
    datamanager(parsed, test_mode="val")
    assert "All training photos have the same pixels." in spoken(capsys)


@pytest.mark.parametrize("mode, colour", [("RGBA", (9, 9, 9, 0)), ("RGB", (255, 255, 255)), ("RGB", (90, 0, 0))])
def test_photos_that_show_nothing_are_named(mode, colour, tiny_scene, tmp_path, capsys):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=5)
    parsed = NerfstudioDataParserConfig(data=scene, downscale_factor=1)
    for path in (scene / "images").iterdir():
        Image.open(path).convert(mode).save(path)
    Image.new(mode, (100, 100), colour).save(scene / "images" / "2.png")
    datamanager(parsed, test_mode="val")
    assert "Blank training photos: 2.png." in spoken(capsys)
    for path in (scene / "images").iterdir():
        Image.new(mode, (100, 100), colour).save(path)
    with pytest.raises(
        UserError, match=r"0\.png: this photo, as all 5 training photos, is transparent everywhere or has"
    ):
        datamanager(parsed, test_mode="val")


def test_masks_that_leave_no_training_pixel_are_one_clear_error(tiny_scene, tmp_path, capsys):
    def edit(meta):
        (tmp_path / "photos" / "masks").mkdir()
        for index, frame in enumerate(meta["frames"]):
            frame["mask_path"] = f"masks/{index}.png"
            Image.new("L", (100, 100), 0 if index == 2 else 255).save(tmp_path / "photos" / frame["mask_path"])

    parsed = edited(as_transforms_json(tiny_scene, tmp_path / "photos", count=5), edit)
    datamanager(parsed, test_mode="val")
    assert "Masks: black everywhere are those of 2.png, which are not trained on." in spoken(capsys)
    for path in (tmp_path / "photos" / "masks").iterdir():
        Image.new("L", (100, 100), 0).save(path)
    with pytest.raises(
        UserError, match="as of all 5 training photos, is black everywhere, so that no pixel is trained on"
    ):
        datamanager(parsed, test_mode="val")


def test_the_shipped_photos_give_no_cause_for_a_word(tiny_scene, capsys):
    datamanager(BlenderDataParserConfig(data=tiny_scene), test_mode="val")
    said = spoken(capsys)
    assert said and not [word for word in ("Blank", "same p", "trained on as well", "Masks", "dark") if word in said]


def test_patches_of_any_size_that_fits_are_sampled(tiny_scene):
    manager = datamanager(
        BlenderDataParserConfig(data=tiny_scene),
        test_mode="val",
        patch_size=32,
        train_num_rays_per_batch=2100,
        eval_num_rays_per_batch=1024,
    )
    rays, batch = manager.next_train(0)
    assert len(rays) == 2 * 32 * 32
    for patch in batch["indices"].reshape(2, 32, 32, 3):
        assert torch.equal(patch[..., 1] - patch[0, 0, 1], torch.arange(32)[:, None].expand(32, 32))
        assert torch.equal(patch[..., 2] - patch[0, 0, 2], torch.arange(32).expand(32, 32))


def test_patches_of_the_methods_own_are_sampled(tiny_scene):
    manager = datamanager(
        BlenderDataParserConfig(data=tiny_scene), patch_size=8, pixel_sampler=PatchPixelSamplerConfig(patch_size=8)
    )
    assert isinstance(manager.train_pixel_sampler, PatchPixelSampler)
    with pytest.raises(UserError, match="patch-size 4: the method samples rays in its own way"):
        sampler = PatchPixelSamplerConfig(patch_size=8)
        datamanager(BlenderDataParserConfig(data=tiny_scene), patch_size=4, pixel_sampler=sampler)


@pytest.mark.parametrize(
    "settings, words",
    [
        (
            {"patch_size": 32, "train_num_rays_per_batch": 640},
            "patch-size 32: a patch needs 1024 rays; set .*train",
        ),
        ({"patch_size": 32, "eval_num_rays_per_batch": 640}, "patch-size 32: a patch needs 1024 rays; set .*eval"),
        ({"patch_size": 101}, "patch-size 101: must be at most 100, the photos' shorter side"),
        ({"patch_size": 0}, "patch-size 0: must be at least 1"),
        (
            {"patch_size": 4, "pixel_sampler": SinglePhotoPixelSamplerConfig()},
            "patch-size 4: the method samples rays in its own way; set it to 1",
        ),
        ({"train_num_rays_per_batch": 0}, "train-num-rays-per-batch 0: must be at least 1"),
    ],
)
def test_patches_that_cannot_be_sampled_are_one_clear_error(settings, words, tiny_scene):
    rays = {"train_num_rays_per_batch": 20_000, "eval_num_rays_per_batch": 20_000}
    with pytest.raises(UserError, match=f"--pipeline.datamanager.{words}"):
        datamanager(BlenderDataParserConfig(data=tiny_scene), test_mode="val", **(rays | settings))


def background_of_rays(manager):
    """Which rays of a step show the background, by the batch and by the files' transparency."""
    manager.mark_background()
    _, batch = manager.next_train(0)
    dataset = manager.train_dataset
    alpha = [dataset.get_numpy_image(photo)[row, column, 3] for photo, row, column in batch["indices"].tolist()]
    assert 0.05 < batch["is_background"].float().mean() < 0.95
    return batch["is_background"].flatten().tolist(), [value == 0 for value in alpha]


@pytest.mark.parametrize("alpha_color", ["white", None])
def test_rays_through_transparent_pixels_are_of_the_background(alpha_color, tiny_scene):
    manager = datamanager(BlenderDataParserConfig(data=tiny_scene, alpha_color=alpha_color), num_views=3)
    is_background, is_transparent = background_of_rays(manager)
    assert is_background == is_transparent


def test_photos_of_several_sizes_have_a_background(tiny_scene, tmp_path):
    def edit(meta):
        path = tmp_path / "photos" / meta["frames"][1]["file_path"]
        Image.open(path).resize((50, 30)).save(path)
        meta["frames"][1] |= {"w": 50, "h": 30}

    manager = datamanager(edited(as_transforms_json(tiny_scene, tmp_path / "photos", count=4), edit))
    assert len(manager.train_dataset.cameras.width.unique()) == 2
    is_background, is_transparent = background_of_rays(manager)
    assert is_background == is_transparent


def test_opaque_photos_on_one_colour_have_a_background_around_the_object(tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=4)
    transparent = [np.asarray(Image.open(scene / "images" / f"{index}.png"))[..., 3] == 0 for index in range(4)]
    for path in (scene / "images").iterdir():
        on_grey = Image.new("RGBA", (100, 100), (90, 90, 90, 255))
        on_grey.alpha_composite(Image.open(path))
        on_grey.convert("RGB").save(path)
    manager = datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1))
    assert "is_background" not in manager.next_train(0)[1], "nobody asked for it"
    manager.mark_background()
    _, batch = manager.next_train(0)
    names = [int(path.stem) for path in manager.train_dataset.image_filenames]
    truth = [transparent[names[photo]][row, column] for photo, row, column in batch["indices"].tolist()]
    found = batch["is_background"].flatten().tolist()
    assert not [1 for is_found, is_true in zip(found, truth, strict=True) if is_found and not is_true]
    assert sum(found) > 0.5 * sum(truth) > 20


@pytest.mark.parametrize("kind", ["opaque", "with transparent holes in front of a room"])
def test_photos_of_a_room_have_no_background(kind, tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=4)
    for path in (scene / "images").iterdir():
        image = np.random.default_rng(0).integers(0, 256, (100, 100, 4), dtype=np.uint8)
        image[..., 3] = 255
        image[40:60, 40:60, 3] = 255 if kind == "opaque" else 0
        Image.fromarray(image).save(path)
    manager = datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1))
    manager.mark_background()
    assert "is_background" not in manager.next_train(0)[1]


def test_an_opaque_photo_among_transparent_ones_has_no_background(tiny_scene, tmp_path):
    def with_each_photo_twice(meta):
        for index, frame in enumerate(list(meta["frames"])):
            shutil.copy(tmp_path / "photos" / frame["file_path"], tmp_path / "photos" / "images" / f"again_{index}.png")
            meta["frames"].append(frame | {"file_path": f"images/again_{index}.png"})

    scene = edited(as_transforms_json(tiny_scene, tmp_path / "photos", count=8), with_each_photo_twice)
    path = tmp_path / "photos" / "images" / "1.png"
    on_white = Image.new("RGBA", (100, 100), "white")
    on_white.alpha_composite(Image.open(path))
    on_white.save(path)
    manager = datamanager(scene, train_num_rays_per_batch=4096)
    assert manager.capture.is_transparent
    manager.mark_background()
    _, batch = manager.next_train(0)
    opaque = [photo.name for photo in manager.train_dataset.image_filenames].index("1.png")
    of_opaque = batch["indices"][:, 0] == opaque
    assert of_opaque.any() and not batch["is_background"][of_opaque].any() and batch["is_background"].any()
