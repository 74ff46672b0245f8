"""Few-shot copies: which frames, at which size."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dietnerf_ns.bench.experiment import BenchmarkScene, Views
from dietnerf_ns.bench.scenes import SceneSplit, chosen_splits, evenly_spaced, find_scene, write_few_shot_copy
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.images import downscale_by_area
from tests.helpers.bench import experiment
from tests.helpers.scenes import blender_outputs, shared_scene


def frames(splits, name):
    return [frame["file_path"] for frame in splits[name].frames]


def written(frame):
    """A frame of a copy: paths are as short as they can be."""
    return frame | {"file_path": frame["file_path"].removeprefix("./")}


def test_copy_holds_the_chosen_frames_at_the_chosen_size(tmp_path, tiny_scene):
    splits = chosen_splits(tiny_scene, Views(indices=(5, 2)), experiment(tmp_path))
    write_few_shot_copy(splits, tmp_path / "copy", width=50)
    train = json.loads((tmp_path / "copy" / "transforms_train.json").read_text())
    original = json.loads((tiny_scene / "transforms_train.json").read_text())
    assert train["frames"] == [written(original["frames"][i]) for i in (5, 2)], "in the order of choice"
    assert train["camera_angle_x"] == original["camera_angle_x"]
    assert sorted(path.name for path in (tmp_path / "copy" / "train").iterdir()) == ["r_2.png", "r_5.png"]
    copied = np.asarray(Image.open(tmp_path / "copy" / "train" / "r_5.png"))
    source = np.asarray(Image.open(tiny_scene / "train" / "r_5.png"))
    np.testing.assert_array_equal(copied, downscale_by_area(source, (50, 50)))
    assert copied.shape == (50, 50, 4)


def test_test_frames_follow_the_stride_and_val_replaces_them(tmp_path, tiny_scene):
    test = chosen_splits(tiny_scene, Views(), experiment(tmp_path))
    assert frames(test, "test") == ["test/r_0", "test/r_8", "test/r_16", "test/r_24"]
    assert len(frames(test, "train")) == 8 and len(frames(test, "val")) == 4
    tuning = chosen_splits(tiny_scene, Views(), experiment(tmp_path, evaluate="val", val_frames=2))
    assert frames(tuning, "test") == frames(tuning, "val") == ["val/r_0", "val/r_3"]


def change(scene, split, changed):
    file = scene / f"transforms_{split}.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()))))


def renamed(rename):
    return lambda meta: (
        meta | {"frames": [frame | {"file_path": rename(frame["file_path"])} for frame in meta["frames"]]}
    )


@pytest.mark.parametrize(
    "changed",
    [
        renamed(lambda name: f"{name}.png"),
        renamed(lambda name: name.replace("/", "\\")),
        lambda meta: meta | {"camera_angle_x": str(meta["camera_angle_x"]), "comment": None},
        lambda meta: meta | {"frames": [f | {"transform_matrix": f["transform_matrix"][:3]} for f in meta["frames"]]},
    ],
    ids=["suffix", "backslashes", "strings", "3x4"],
)
def test_scenes_that_training_completes_are_copied(tmp_path, tiny_scene, changed):
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    for split in ("train", "val", "test"):
        change(scene, split, changed)
    write_few_shot_copy(chosen_splits(scene, Views(indices=(5,)), experiment(tmp_path)), tmp_path / "copy", width=8)
    assert (tmp_path / "copy" / "train" / "r_5.png").is_file()
    original, copied = blender_outputs(tiny_scene), blender_outputs(tmp_path / "copy")
    assert [path.name for path in copied.image_filenames] == ["r_5.png"]
    torch.testing.assert_close(copied.cameras.camera_to_worlds, original.cameras.camera_to_worlds[[5]])
    torch.testing.assert_close(copied.cameras.fx, original.cameras.fx[[5]] * 0.08)


def test_a_stride_that_no_test_frame_has_is_rejected_before_training(tmp_path, tiny_scene):
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    change(scene, "test", lambda meta: meta | {"frames": meta["frames"][1:7]})
    with pytest.raises(UserError, match="test_stride 8: .*transforms_test.json has no frame with such a number"):
        chosen_splits(scene, Views(), experiment(tmp_path))
    assert frames(chosen_splits(scene, Views(), experiment(tmp_path, test_stride=3)), "test") == [
        "test/r_3",
        "test/r_6",
    ]


def test_a_protocol_is_refused_if_the_training_split_is_in_another_order(tmp_path, tiny_scene):
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    change(scene, "train", lambda meta: meta | {"frames": meta["frames"] * 13})
    with pytest.raises(
        UserError, match=r"view 26 of this training split is r_2\.png.*Sort the frames of transforms_train"
    ):
        chosen_splits(scene, Views(protocol="blender-8"), experiment(tmp_path))


def test_a_protocol_on_a_real_scene(tmp_path):
    splits = chosen_splits(shared_scene("lego"), Views(protocol="blender-4"), experiment(tmp_path, test_stride=1))
    assert frames(splits, "train") == ["train/r_26", "train/r_86", "train/r_2", "train/r_55"]
    assert frames(splits, "test") == [f"test/r_{index}" for index in range(0, 200, 8)]


def test_a_finished_copy_is_kept(tmp_path, tiny_scene):
    splits = chosen_splits(tiny_scene, Views(count=1), experiment(tmp_path))
    write_few_shot_copy(splits, tmp_path / "copy", width=8)
    assert {path.name for path in tmp_path.glob("copy/*")} >= {"train", "val", "test", "transforms_val.json"}
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []
    before = (tmp_path / "copy").stat().st_mtime_ns
    write_few_shot_copy(splits, tmp_path / "copy", width=8)
    assert (tmp_path / "copy").stat().st_mtime_ns == before


def test_images_are_never_enlarged(tmp_path, tiny_scene):
    splits = chosen_splits(tiny_scene, Views(count=1), experiment(tmp_path))
    with pytest.raises(UserError, match="only 100 pixels wide; images are never enlarged"):
        write_few_shot_copy(splits, tmp_path / "copy", width=101)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("available, wanted, expected", [(10, 3, [0, 4, 9]), (2, 5, [0, 1]), (100, 1, [0])])
def test_evenly_spaced(available, wanted, expected):
    assert evenly_spaced(available, wanted) == expected


def test_scenes_that_do_not_exist(tmp_path, tiny_scene):
    assert find_scene(BenchmarkScene("tiny"), None) == tiny_scene
    (tmp_path / "lego").mkdir()
    with pytest.raises(UserError, match="'lego' needs --data"):
        find_scene(BenchmarkScene("lego"), None)
    with pytest.raises(UserError, match="no such folder"):
        find_scene(BenchmarkScene("lego"), tmp_path / "nowhere")
    with pytest.raises(UserError, match="'leggo': did you mean lego"):
        find_scene(BenchmarkScene("leggo"), tmp_path)
    with pytest.raises(UserError, match="no transforms_train.json.*name its `dataparser`"):
        find_scene(BenchmarkScene("lego"), tmp_path)
    assert find_scene(BenchmarkScene("lego", dataparser="colmap"), tmp_path) == tmp_path / "lego"


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "no valid JSON"),
        ("{}", "`frames` must be a list"),
        ('{"camera_angle_x": 1, "frames": [{"file_path": "a"}]}', "frame a has no `transform_matrix`"),
        ("[]", "must contain an object"),
        ('{"camera_angle_x": 1, "frames": [5]}', "frame 0 must be an object"),
    ],
)
def test_broken_cameras_are_rejected_with_the_files_name(tmp_path, content, words):
    (tmp_path / "transforms_train.json").write_text(content)
    with pytest.raises(UserError, match=f"transforms_train.json: .*{words}"):
        SceneSplit.read(tmp_path, "train")


def test_a_split_without_its_file(tmp_path):
    with pytest.raises(UserError, match="transforms_train.json cannot be read: .*No such file"):
        SceneSplit.read(tmp_path, "train")
