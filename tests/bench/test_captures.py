"""Few-shot copies of captures in nerfstudio's format: which frames, at which size, in which world."""

import json

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.bench.captures import choose_frames, write_capture_copy
from dietnerf_ns.bench.experiment import BenchmarkScene, Views
from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.utils.errors import SettingError, UserError
from dietnerf_ns.utils.images import downscale_by_area
from tests.helpers.bench import experiment
from tests.helpers.scenes import as_transforms_json

POSE = np.eye(4).tolist()
LISTS = {
    "train_filenames": ["images/0.png", "images/2.png", "images/4.png", "images/6.png", "images/7.png"],
    "val_filenames": ["images/1.png"],
    "test_filenames": ["images/3.png", "images/5.png"],
}


@pytest.fixture
def capture(tmp_path, tiny_scene):
    """Eight photos with splits of its own."""
    folder = as_transforms_json(tiny_scene, tmp_path / "capture", count=8)
    change(folder, LISTS)
    return folder


def change(folder, content):
    file = folder / "transforms.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | content))


def frames_of(folder):
    return json.loads((folder / "transforms.json").read_text())["frames"]


def choose(folder, views, tmp_path, arguments=None, **content):
    scene = BenchmarkScene("capture", "nerfstudio-data", arguments or {})
    return choose_frames(folder, scene, views, experiment(tmp_path, **content))


def parsed(folder, split):
    return NerfstudioDataParserConfig(data=folder).setup().get_dataparser_outputs(split)


def names(outputs):
    return [path.name for path in outputs.image_filenames]


def test_the_copy_has_the_chosen_frames_in_the_world_of_the_whole_capture(tmp_path, capture):
    write_capture_copy(choose(capture, Views(indices=(3, 1)), tmp_path), tmp_path / "copy", width=50)
    before, after = parsed(capture, "train"), parsed(tmp_path / "copy", "train")
    assert names(after) == ["2.png", "6.png"]
    assert names(parsed(tmp_path / "copy", "val")) == ["1.png"]
    assert names(parsed(tmp_path / "copy", "test")) == ["3.png", "5.png"]
    torch.testing.assert_close(after.cameras.camera_to_worlds, before.cameras.camera_to_worlds[[1, 3]])
    torch.testing.assert_close(after.dataparser_transform, before.dataparser_transform)
    assert after.dataparser_scale == pytest.approx(before.dataparser_scale)
    for intrinsic in ("fx", "fy", "cx", "cy", "width", "height"):
        torch.testing.assert_close(getattr(after.cameras, intrinsic) * 2, getattr(before.cameras, intrinsic)[[1, 3]])
    copied = np.asarray(Image.open(tmp_path / "copy" / "images" / "6.png"))
    source = np.asarray(Image.open(capture / "images" / "6.png"))
    np.testing.assert_array_equal(copied, downscale_by_area(source, (50, 50)))
    assert len(list((tmp_path / "copy" / "images").iterdir())) == 5, "unused photos are left out"


def test_views_and_photos_are_those_of_the_methods_own_datamanager(tmp_path, capture):
    write_capture_copy(choose(capture, Views(count=3), tmp_path), tmp_path / "copy", width=50)
    few = FewShotDataManagerConfig(
        dataparser=NerfstudioDataParserConfig(data=capture), num_views=3, camera_res_scale_factor=0.5
    ).setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
    assert sorted(names(few.train_dataset)) == names(parsed(tmp_path / "copy", "train"))
    for index, path in enumerate(few.train_dataset.image_filenames):
        copied = np.asarray(Image.open(tmp_path / "copy" / "images" / path.name))
        np.testing.assert_array_equal(copied, few.train_dataset.get_numpy_image(index))


def test_photos_of_different_sizes_get_intrinsics_of_their_own(tmp_path, capture):
    frames = frames_of(capture)
    Image.new("RGB", (80, 61), "red").save(capture / "images" / "4.jpg")
    frames[4] |= {"file_path": "images/4.jpg"}
    frames = [
        frame | {"w": 100, "h": 100, "fl_x": 140.0, "fl_y": 130.0, "cx": 50.0, "cy": 48.0, "k1": 0.1}
        for frame in frames
    ]
    frames[4] |= {"w": 80, "h": 61}
    train = ["images/0.png", "images/4.jpg"]
    (capture / "transforms.json").write_text(json.dumps(LISTS | {"train_filenames": train, "frames": frames}))
    write_capture_copy(choose(capture, Views(), tmp_path), tmp_path / "copy", width=40)
    cameras = parsed(tmp_path / "copy", "train").cameras
    assert cameras.width.flatten().tolist() == [40, 40] and cameras.height.flatten().tolist() == [40, 30]
    assert cameras.fx.flatten().tolist() == pytest.approx([56, 70])
    assert cameras.fy.flatten().tolist() == pytest.approx([52, 130 * 30 / 61])
    assert cameras.cy.flatten().tolist() == pytest.approx([19.2, 48 * 30 / 61])
    assert cameras.distortion_params[:, 0].tolist() == pytest.approx([0.1, 0.1]), "has no unit"
    assert Image.open(tmp_path / "copy" / "images" / "4.png").size == (40, 30)


def test_what_a_frame_has_of_its_own_comes_before_the_top_of_the_file(tmp_path, capture):
    """As in training."""
    frames = frames_of(capture)
    frames[2] |= {"fl_x": 70.0, "cy": 40.0, "k1": 0.1}
    change(capture, {"frames": frames, "fl_x": 140.0, "k1": 0.3})
    write_capture_copy(choose(capture, Views(indices=(0, 1)), tmp_path), tmp_path / "copy", width=50)
    cameras = parsed(tmp_path / "copy", "train").cameras
    assert cameras.fx.flatten().tolist() == pytest.approx([70, 35])
    assert cameras.cy.flatten().tolist() == pytest.approx([25, 20])
    assert cameras.distortion_params[:, 0].tolist() == pytest.approx([0.3, 0.1])


def without(*keys):
    return lambda meta: {key: value for key, value in meta.items() if key not in keys}


def with_names(rename):
    def changed(meta):
        frames = [frame | {"file_path": rename(frame["file_path"])} for frame in meta["frames"]]
        return meta | {"frames": frames} | {key: list(map(rename, names)) for key, names in LISTS.items()}

    return changed


@pytest.mark.parametrize(
    "changed",
    [
        without("w", "h"),
        without("cx", "cy", "fl_y"),
        lambda meta: without("fl_x", "fl_y")(meta) | {"camera_angle_x": 2 * np.arctan(50 / meta["fl_x"])},
        lambda meta: meta | {key: str(meta[key]) for key in ("w", "h", "fl_x", "cx")},
        lambda meta: meta | {"w": None},
        with_names(lambda name: name.replace("/", "\\")),
        with_names(lambda name: name.removesuffix(".png")),
    ],
    ids=["no size", "no centre", "angle", "strings", "null", "backslashes", "no suffix"],
)
def test_captures_that_training_completes_are_copied(tmp_path, capture, changed):
    before = parsed(capture, "train")
    file = capture / "transforms.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()))))
    write_capture_copy(choose(capture, Views(), tmp_path), tmp_path / "copy", width=50)
    after = parsed(tmp_path / "copy", "train")
    assert names(after) == names(before) and all(path.is_file() for path in after.image_filenames)
    for intrinsic in ("fx", "fy", "cx", "cy", "width", "height"):
        torch.testing.assert_close(getattr(after.cameras, intrinsic) * 2, getattr(before.cameras, intrinsic))


@pytest.mark.parametrize("size", [(100, 60), (60, 100)], ids=["the stored pixels", "the upright photo"])
def test_photos_with_an_orientation_are_turned_as_their_cameras_are(tmp_path, capture, size):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    for path in (capture / "images").iterdir():
        Image.new("RGB", (100, 60)).save(path, exif=exif)
    change(capture, {"w": size[0], "h": size[1]})
    exif[0x0112] = 3  # upside down, which its size does not tell
    top_is_white = np.zeros((size[1], size[0], 3), np.uint8)
    top_is_white[: size[1] // 2] = 255
    Image.fromarray(top_is_white).save(capture / "images" / "0.png", exif=exif)
    chosen = choose(capture, Views(indices=(0, 1)), tmp_path)
    write_capture_copy(chosen, tmp_path / "copy", width=30)
    for path in parsed(tmp_path / "copy", "train").image_filenames:
        assert Image.open(path).size == (30, round(30 * size[1] / size[0]))
    is_turned = np.asarray(Image.open(tmp_path / "copy" / "images" / "0.png"))[0].mean() == 0
    assert is_turned == chosen.orientations.upright == (size == (60, 100)), "as the others are"


def test_photos_whose_orientation_nothing_tells_are_named_when_they_are_reduced(tmp_path, capture, capsys):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (100, 100)).save(capture / "images" / "0.png", exif=exif)
    write_capture_copy(choose(capture, Views(indices=(1,)), tmp_path), tmp_path / "without", width=30)
    write_capture_copy(choose(capture, Views(indices=(0,)), tmp_path), tmp_path / "as it is", width=None)
    assert "Orientation" not in capsys.readouterr().out
    write_capture_copy(choose(capture, Views(indices=(0,)), tmp_path), tmp_path / "copy", width=30)
    assert "Orientation: 0.png: EXIF says how to turn these photos" in capsys.readouterr().out


def test_masks_are_turned_as_their_photos_are(tmp_path, capture):
    """Photo and mask 0 upside down, which the sizes of the others tell."""
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = frames_of(capture)
    (capture / "masks").mkdir()
    left_is_inside = np.zeros((60, 100), np.uint8)
    left_is_inside[:, :20] = 255
    for index, frame in enumerate(frames):
        frame["mask_path"] = f"masks/{index}.png"
        for folder in ("images", "masks"):
            Image.fromarray(left_is_inside).save(capture / folder / f"{index}.png", exif=exif)
    exif[0x0112] = 3
    for folder in ("images", "masks"):
        Image.fromarray(left_is_inside.T).save(capture / folder / "0.png", exif=exif)
    change(capture, {"frames": frames, "w": 60, "h": 100})
    parser = NerfstudioDataParserConfig(data=capture, downscale_factor=1)
    dataset = FewShotDataManagerConfig(dataparser=parser, camera_res_scale_factor=0.5).setup(test_mode="val")
    write_capture_copy(choose(capture, Views(indices=(0, 1)), tmp_path), tmp_path / "copy", width=30)
    for index in (0, 1):
        data = dataset.train_dataset.get_data(index)
        assert torch.equal(data["mask"][..., 0], data["image"][..., 0] > 0.5)
        copies = [np.asarray(Image.open(tmp_path / "copy" / name / f"{index}.png")) for name in ("images", "masks")]
        assert 0 < copies[1].mean() < 255 and np.array_equal(copies[0].reshape(50, 30, -1)[..., 0], copies[1])


def test_masks_depth_images_and_points_are_in_the_copy(tmp_path, capture):
    mask = np.zeros((100, 100), np.uint8)
    mask[:50, 30:] = 255
    (capture / "masks").mkdir()
    frames = frames_of(capture)
    for index, frame in enumerate(frames):
        Image.fromarray(mask).save(capture / "masks" / f"{index}.png")
        np.save(capture / "images" / f"{index}.npy", np.ones((100, 100)))
        frame |= {"mask_path": f"masks/{index}.png", "depth_file_path": f"images/{index}.npy"}
    (capture / "points.ply").write_text("ply")
    change(capture, {"frames": frames, "ply_file_path": "points.ply"})
    write_capture_copy(choose(capture, Views(count=2), tmp_path), tmp_path / "copy", width=10)
    train = parsed(tmp_path / "copy", "train")
    for path in train.mask_filenames:
        np.testing.assert_array_equal(np.asarray(Image.open(path)), mask[5::10, 5::10])
    assert all(path.is_file() for path in train.metadata["depth_filenames"])
    assert (tmp_path / "copy" / "points.ply").read_text() == "ply"


def test_without_resolution_the_files_are_copied_as_they_are(tmp_path, capture):
    write_capture_copy(choose(capture, Views(indices=(0,)), tmp_path), tmp_path / "copy", width=None)
    for name in ("0.png", "1.png", "3.png"):
        assert (tmp_path / "copy" / "images" / name).read_bytes() == (capture / "images" / name).read_bytes()
    torch.testing.assert_close(parsed(tmp_path / "copy", "train").cameras.fx, parsed(capture, "train").cameras.fx[:1])


def test_a_capture_without_lists_is_split_by_the_dataparser(tmp_path, tiny_scene):
    folder = as_transforms_json(tiny_scene, tmp_path / "capture", count=8)
    chosen = choose(folder, Views(), tmp_path, {"eval-mode": "interval", "eval-interval": 4})
    assert [path.name for path in chosen.splits["test"]] == ["0.png", "4.png"]
    assert [path.name for path in chosen.splits["train"]] == [f"{i}.png" for i in (1, 2, 3, 5, 6, 7)]


def test_settings_are_chosen_on_training_views_that_are_not_trained_on(tmp_path, capture):
    splits = choose(capture, Views(indices=(1, 0)), tmp_path, evaluate="val", val_frames=2).splits
    assert [path.name for path in splits["train"]] == ["2.png", "0.png"]
    assert [path.name for path in splits["val"]] == ["4.png", "7.png"] and splits["test"] == splits["val"]
    with pytest.raises(UserError, match="all 5 training views are trained on; choose fewer"):
        choose(capture, Views(), tmp_path, evaluate="val")


@pytest.mark.parametrize(
    "content, words",
    [
        ({"test_filenames": []}, "the test split of the capture has no frames"),
        ({"test_filenames": ["images/2.png"]}, "images/2.png is a training view and a test frame"),
        ({"test_filenames": ["images/9.png"]}, "cannot read .*capture: RuntimeError: Some filenames"),
        ({"frames": 5}, "transforms.json: `frames` must be a list"),
        ({"frames": [{"file_path": "/a.png", "transform_matrix": POSE}]}, "/a.png is outside of the capture's folder"),
        ({"frames": [{"file_path": "a.png"}]}, "frame a.png has no `transform_matrix`"),
        ({"ply_file_path": "../points.ply"}, "../points.ply is outside of the capture's folder"),
    ],
)
def test_captures_that_cannot_be_copied(tmp_path, capture, content, words):
    change(capture, content)
    with pytest.raises(UserError, match=words):
        choose(capture, Views(), tmp_path)


def test_a_capture_without_its_file(tmp_path, capture):
    (capture / "transforms.json").unlink()
    with pytest.raises(UserError, match="transforms.json cannot be read: .*No such file"):
        choose(capture, Views(), tmp_path)


def test_choices_that_a_capture_does_not_have(tmp_path, capture):
    with pytest.raises(SettingError, match="the training split has 5 views"):
        choose(capture, Views(count=6), tmp_path)
    with pytest.raises(UserError, match="protocol blender-8 has views of NeRF-Synthetic scenes"):
        choose(capture, Views(protocol="blender-8"), tmp_path)
    with pytest.raises(UserError, match="downscale-factor does not apply to a copy"):
        choose(capture, Views(), tmp_path, {"downscale-factor": 2})


def test_true_and_false_are_written_as_ns_train_takes_them(tmp_path, capture):
    scene = {"name": "capture", "dataparser": "nerfstudio-data", "arguments": {"auto-scale-poses": False}}
    assert experiment(tmp_path, scenes=[scene]).scenes[0].arguments == {"auto-scale-poses": False}
    chosen = choose(capture, Views(count=3), tmp_path, {"auto-scale-poses": False})
    assert len(chosen.splits["train"]) == 3


def test_images_that_do_not_fit_their_cameras(tmp_path, capture):
    chosen = choose(capture, Views(indices=(0,)), tmp_path)
    with pytest.raises(UserError, match="only 100 pixels wide; images are never enlarged"):
        write_capture_copy(chosen, tmp_path / "copy", width=101)
    Image.new("RGB", (50, 50)).save(capture / "images" / "0.png")
    with pytest.raises(UserError, match=r"images/0.png has 50x50 pixels, but transforms.json says 100x100"):
        write_capture_copy(chosen, tmp_path / "copy", width=20)
    assert not (tmp_path / "copy").exists()


def test_photos_that_would_become_one_file(tmp_path, capture):
    frames = frames_of(capture)
    Image.new("RGB", (100, 100)).save(capture / "images" / "3.jpg")
    change(capture, {"frames": [*frames, frames[3] | {"file_path": "images/3.jpg"}]})
    with pytest.raises(UserError, match=r"3.png and images/3.jpg differ only in their file type"):
        write_capture_copy(choose(capture, Views(), tmp_path), tmp_path / "copy", width=20)
