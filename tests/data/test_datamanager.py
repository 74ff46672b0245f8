import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.data.capture import Capture
from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
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


def test_a_protocol_does_not_do_without_its_test_split(tiny_scene, tmp_path):
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    meta = json.loads((scene / "transforms_train.json").read_text())
    (scene / "transforms_train.json").write_text(json.dumps(meta | {"frames": meta["frames"] * 13}))
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
    with pytest.raises(UserError, match="The dataparser cannot read .*photos: [A-Za-z]+Error: "):
        datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1))


@pytest.mark.parametrize("count, apart", [(1, 0.0), (3, 0.0), (3, 2.4e-7)])  # the last: float32's rounding error
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
    with pytest.raises(UserError, match=r"r_3\.png: this photo or its mask cannot be read: OSError"):
        datamanager(BlenderDataParserConfig(data=scene))


def test_a_photo_with_channels_that_nerfstudio_does_not_read_is_named(tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=6)
    for index in range(6):
        Image.new("LA", (100, 100)).save(scene / "images" / f"{index}.png")
    with pytest.raises(UserError, match=r"0\.png: this photo or its mask cannot be read: AssertionError"):
        datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1))


def test_a_missing_mask_names_its_photo(tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=6)
    meta = json.loads((scene / "transforms.json").read_text())
    for frame in meta["frames"]:
        frame["mask_path"] = f"masks/{Path(frame['file_path']).name}"
    (scene / "transforms.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=r"\.png: this photo or its mask cannot be read: FileNotFoundError"):
        datamanager(NerfstudioDataParserConfig(data=scene, downscale_factor=1), test_mode="val")


def test_a_dataparser_that_cannot_be_built_is_one_clear_error(tiny_scene, monkeypatch):
    def broken(self, config):
        raise KeyError("scale")

    monkeypatch.setattr(NerfstudioDataParserConfig()._target, "__init__", broken)
    with pytest.raises(UserError, match="The dataparser cannot read .*: KeyError: 'scale'"):
        datamanager(NerfstudioDataParserConfig(data=tiny_scene))


def test_each_training_photo_is_decoded_once(tiny_scene, tmp_path, monkeypatch):
    opened = Counter()
    real_open = Image.open

    def counting_open(path, *arguments, **options):
        opened[Path(path).name] += 1
        return real_open(path, *arguments, **options)

    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=8)
    parsed = NerfstudioDataParserConfig(data=scene, downscale_factor=1)
    manager = datamanager(parsed, num_views=5, test_mode="inference")
    kept = [path.name for path in manager.train_dataset.image_filenames]
    monkeypatch.setattr(Image, "open", counting_open)
    manager = datamanager(parsed, num_views=5, test_mode="val")
    manager.next_train(0)
    photo_variance(manager.train_dataset, lambda image: image[..., :3], manager.train_pixel_sampler)
    embed_photos(FakeEncoder(), manager.train_dataset, lambda image: image[..., :3], torch.device("cpu"))
    assert {name: opened[name] for name in kept} == dict.fromkeys(kept, 1)


def test_photos_beyond_the_memory_limit_are_decoded_again(tiny_scene, monkeypatch):
    from dietnerf_ns.data import dataset

    monkeypatch.setattr(dataset, "KEPT_BYTES", 2 * 100 * 100 * 4)
    photos = datamanager(BlenderDataParserConfig(data=tiny_scene), test_mode="inference").train_dataset
    first, again = ([photos.get_numpy_image(index) for index in range(3)] for _ in range(2))
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False]
    assert (first[2] == again[2]).all()


def test_a_blender_scene_without_validation_split_trains(tiny_scene, tmp_path):
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    (scene / "transforms_val.json").unlink()
    manager = datamanager(BlenderDataParserConfig(data=scene), test_mode="val", num_views=6)
    assert len(manager.eval_dataset) == 2
