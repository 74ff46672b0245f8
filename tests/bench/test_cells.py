"""Which cells an experiment has, and what changes their ids."""

import copy
import importlib
import json
import shutil

import pytest
from nerfstudio.configs.method_configs import all_methods
from PIL import Image

from dietnerf_ns import __version__
from dietnerf_ns.bench.captures import FewShotCapture
from dietnerf_ns.bench.cells import (
    _hashes_of_sources,
    _plan_capture_copy,
    _plan_copy,
    code_of_plugins,
    plan_cells,
    short_hash,
)
from dietnerf_ns.bench.experiment import BenchmarkScene, Views, as_flags
from dietnerf_ns.bench.scenes import SPLITS, file_hash
from dietnerf_ns.bench.train_cell import arguments_here
from dietnerf_ns.data.photos import Orientations
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import experiment
from tests.helpers.scenes import as_transforms_json

TWO = [{"name": "dietnerf-tiny", "label": "default"}, {"name": "nerfacto", "overrides": {"max-num-iterations": 7}}]


@pytest.fixture
def plan(tmp_path):
    return lambda **content: plan_cells(experiment(tmp_path, resolution=8, **content), None, tmp_path)


def test_many_views_do_not_make_a_folder_name_that_no_file_system_takes(plan):
    labels = [f"views {' '.join(map(str, range(100)))} {end}" for end in "ab"]
    cells = plan(views=[{"indices": [0], "label": label} for label in labels])
    assert len({cell.id for cell in cells}) == 2 and max(len(cell.id) for cell in cells) < 200


def test_every_combination_once_in_the_order_of_the_file(plan):
    cells = plan(methods=TWO, seeds=[3, 1], views=[{"count": 2}, {"indices": [0]}])
    places = [(cell.views, cell.method, cell.seed) for cell in cells]
    assert places == [
        (views, method, seed)
        for views in ("2 farthest", "views 0")
        for method in ("default", "nerfacto")
        for seed in (3, 1)
    ]
    assert len({cell.id for cell in cells}) == 8
    assert cells[0].id.startswith("tiny-2_farthest-default-s3-")


def test_scenes_have_views_and_methods_have_seeds_of_their_own(tmp_path, tiny_scene):
    shutil.copytree(tiny_scene, tmp_path / "data" / "other")
    scenes = ["tiny", {"name": "other", "views": [{"indices": [1], "label": "one"}, {"count": 2}]}]
    methods = ["dietnerf-tiny", {"name": "nerfacto", "seeds": [1]}]
    content = {"scenes": scenes, "methods": methods, "views": [{"indices": [0]}], "seeds": [0, 1], "resolution": 8}
    cells = plan_cells(experiment(tmp_path, **content), tmp_path / "data", tmp_path)
    assert [(cell.scene, cell.views, cell.method, cell.seed) for cell in cells] == [
        (scene, views, method, seed)
        for scene, views in (("tiny", "views 0"), ("other", "one"), ("other", "2 farthest"))
        for method, seed in (("dietnerf-tiny", 0), ("dietnerf-tiny", 1), ("nerfacto", 1))
    ]
    assert cells[3].id.startswith("other-one-dietnerf_tiny-s0-")


def test_a_table_of_unseen_views_needs_no_new_runs(plan):
    assert plan(unseen_from=45)[0].id == plan()[0].id


def test_arguments_of_ns_train(plan):
    (cell,) = plan(methods=TWO[1:], overrides={"max-num-iterations": 5, "mixed-precision": False})
    assert cell.split == "test", "where a few-shot copy holds what is evaluated"
    arguments = cell.train_arguments
    assert arguments[0] == "nerfacto" and arguments[-1] == "blender-data"
    settings = dict(zip(arguments[1:-1:2], arguments[2:-1:2], strict=True))
    assert settings["--max-num-iterations"] == "7", "a method's own setting comes first"
    assert settings["--mixed-precision"] == "False" and settings["--machine.seed"] == "0"
    assert settings["--data"].startswith("scenes/tiny-all_views-")
    assert "--machine.device-type" not in settings, "only known where the cell runs"
    assert cell.config_file.as_posix() == f"cells/{cell.id}/nerfacto/run/config.yml"


@pytest.mark.parametrize("there, device", [(True, "cuda"), (False, "cpu")])
def test_the_device_is_that_of_the_machine_that_runs_the_cell(plan, monkeypatch, there, device):
    (cell,) = plan(overrides={"max-num-iterations": 5})
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert plan(overrides={"max-num-iterations": 5}) == [cell], "the same cell on every machine"
    assert arguments_here(cell)[:3] == ["dietnerf-tiny", "--machine.device-type", device]
    assert arguments_here(cell)[3:] == list(cell.train_arguments[1:])


def test_lists_become_several_arguments():
    assert as_flags({"a.b": [1, 2.5], "c": None}) == ["--a.b", "1", "2.5", "--c", "None"]


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [1]},
        {"overrides": {"max-num-iterations": 5}},
        {"test_stride": 2},
        {"evaluate": "val"},
        {"similarity": {"encoder": "open-clip"}},
        {"views": [{"indices": [1, 0]}]},
        {"resolution": 9},
        {"seconds": 60},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_id_changes_with_whatever_defines_the_cell(tmp_path, change):
    def identity(**content):
        content = {"views": [{"indices": [0, 1]}], "resolution": 8} | content
        return plan_cells(experiment(tmp_path, **content), None, tmp_path)[0].id

    assert identity() == identity()
    assert identity(**change) != identity()


def test_the_id_changes_with_the_methods_defaults(plan, monkeypatch):
    before = plan()[0].id
    monkeypatch.setattr(all_methods["dietnerf-tiny"].pipeline.semantic, "weight", 0.5)
    assert plan()[0].id != before


@pytest.mark.parametrize("method", ["dietnerf-tiny", "dietnerf-tensorf", "nerfacto"])
def test_the_id_does_not_change_with_the_device_of_the_machine_that_plans(plan, monkeypatch, method):
    (first,) = plan(methods=[method])
    other = copy.deepcopy(all_methods[method])
    other.machine.device_type = "cpu" if other.machine.device_type == "cuda" else "cuda"
    monkeypatch.setitem(all_methods, method, other)
    (second,) = plan(methods=[method])
    assert first.id == second.id


def test_the_id_changes_with_the_code_of_a_plugin(plan, tmp_path, monkeypatch):
    """Its methods are edited between runs, without another version or other settings."""
    for folder in ("edited_plugin", "edited_plugin/parts"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    model = tmp_path / "edited_plugin" / "parts" / "model.py"
    base = "from nerfstudio.models.nerfacto import NerfactoModel\n"
    model.write_text(f"{base}class Edited(NerfactoModel):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    edited = importlib.import_module("edited_plugin.parts.model").Edited
    config = copy.deepcopy(all_methods["nerfacto"])
    config.pipeline.model._target = type("Derived", (edited,), {"__module__": "dietnerf_ns.models"})
    monkeypatch.setitem(all_methods, "nerfacto", config)

    def ids():
        return [cell.id for cell in plan(methods=["nerfacto", "mipnerf"])]

    before = ids()
    (tmp_path / "edited_plugin" / ".#model.py").symlink_to("what an editor leaves")
    (tmp_path / "edited_plugin" / ".backups").mkdir()
    (tmp_path / "edited_plugin" / ".backups" / "model.py").write_text("")
    _hashes_of_sources.cache_clear()
    assert ids() == before
    model.write_text(f"{model.read_text()}    a = 1\n")
    _hashes_of_sources.cache_clear()
    after = ids()
    assert after[0] != before[0] and after[1] == before[1], "only that of the plugin's method"


def test_the_code_of_nerfstudio_and_of_this_package_is_no_plugins(monkeypatch):
    ours = [name for name, config in all_methods.items() if type(config).__module__.startswith("dietnerf_ns.")]
    assert len(ours) >= 8
    for method in ("nerfacto", "tensorf", "mipnerf", "splatfacto", *ours):
        assert code_of_plugins(method, "blender-data") == code_of_plugins(method, "nerfstudio-data") == []


def test_a_nerf_synthetic_scene_is_copied_whether_its_dataparser_is_named_or_not(plan):
    choices = {"views": [{"indices": [0, 3]}], "seeds": [0]}
    (named,) = plan(scenes=[{"name": "tiny", "dataparser": "blender-data"}], **choices)
    (cell,) = plan(scenes=["tiny"], **choices)
    assert named == cell and cell.views == "views 0 3"


def test_the_id_changes_with_the_version_of_the_package(plan, monkeypatch):
    before = plan()[0]
    monkeypatch.setattr("dietnerf_ns.bench.cells.__version__", "0.0.0")
    assert plan()[0].id != before.id


@pytest.mark.parametrize(
    "image, used", [("train/r_1", True), ("val/r_0", True), ("test/r_8", True), ("test/r_1", False)]
)
def test_changed_images_give_a_new_copy_and_a_new_id(tmp_path, tiny_scene, image, used):
    """Exported again, with the same cameras."""
    shutil.copytree(tiny_scene, tmp_path / "data" / "scene")
    read = experiment(tmp_path, scenes=["scene"], views=[{"indices": [0, 1]}], resolution=8)
    (before,) = plan_cells(read, tmp_path / "data", tmp_path)
    Image.new("RGBA", (100, 100), "red").save(tmp_path / "data" / "scene" / f"{image}.png")
    (after,) = plan_cells(read, tmp_path / "data", tmp_path)
    assert (after.id != before.id) == used
    assert len(list((tmp_path / "scenes").iterdir())) == 1 + used


def test_an_image_that_is_missing_is_named(tmp_path, tiny_scene):
    shutil.copytree(tiny_scene, tmp_path / "data" / "scene")
    (tmp_path / "data" / "scene" / "test" / "r_8.png").unlink()
    with pytest.raises(UserError, match="r_8.png cannot be read"):
        plan_cells(experiment(tmp_path, scenes=["scene"]), tmp_path / "data", tmp_path)


@pytest.mark.parametrize(
    "file, content",
    [
        ("sparse/points.bin", "a longer one"),
        ("images/c.png", "a new image"),
        ("train_list.txt", "b"),
        ("poses_bounds.npy", "b"),
    ],
)
def test_changed_files_of_a_scene_used_as_it_is_give_a_new_id(tmp_path, file, content):
    folder = tmp_path / "data" / "fern"
    for name in ("sparse/points.bin", "images/a.png", "train_list.txt", "poses_bounds.npy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a")
    read = experiment(tmp_path, scenes=[{"name": "fern", "dataparser": "colmap"}])

    def identity():
        return plan_cells(read, tmp_path / "data", tmp_path)[0].id

    before = identity()
    (folder / ".hidden").write_text("left by a file manager")
    assert identity() == before
    (folder / file).write_text(content)
    assert identity() != before


@pytest.mark.parametrize("name, size", [("images.bin", 100), ("cameras.bin", 100), ("images.bin", 2**24 + 1)])
def test_other_poses_in_a_sparse_model_of_the_same_size_give_a_new_id(tmp_path, name, size):
    file = tmp_path / "data" / "fern" / "sparse" / "0" / name
    file.parent.mkdir(parents=True)
    read = experiment(tmp_path, scenes=[{"name": "fern", "dataparser": "colmap"}])
    ids = set()
    for content in (b"a", b"b"):
        file.write_bytes(content * size)
        ids.add(plan_cells(read, tmp_path / "data", tmp_path)[0].id)
    assert len(ids) == 2


def test_a_scene_of_another_dataparser_is_used_as_it_is(tmp_path, capsys):
    (tmp_path / "data" / "fern").mkdir(parents=True)
    scene = {"name": "fern", "dataparser": "colmap", "arguments": {"eval-mode": "interval"}}
    read = experiment(tmp_path, scenes=[scene], views=[{"count": 2}, {"count": 3}], evaluate="val")
    (cell,) = plan_cells(read, tmp_path / "data", tmp_path)
    assert cell.views == "as is", "once, whatever the views of other scenes are"
    assert "fern is read as it is by colmap. Each method reads the folder" in capsys.readouterr().out
    assert cell.split == "val"
    assert cell.train_arguments[-3:] == ("colmap", "--eval-mode", "interval")
    assert cell.train_arguments[cell.train_arguments.index("--data") + 1] == str(tmp_path / "data" / "fern")


@pytest.mark.parametrize(
    "content, views",
    [
        ({"evaluate": "val"}, ["as is"]),
        ({"resolution": 50}, ["all views"]),
        ({"evaluate": "val", "views": [{"count": 2}, {"indices": [3, 0]}]}, ["2 farthest", "views 3 0"]),
    ],
)
def test_a_capture_is_copied_if_views_or_resolution_are_given(tmp_path, tiny_scene, content, views):
    folder = as_transforms_json(tiny_scene, tmp_path / "data" / "garden", count=8)
    arguments = {"eval-mode": "interval", "eval-interval": 4}
    scene = {"name": "garden", "dataparser": "nerfstudio-data", "arguments": arguments}
    cells = plan_cells(experiment(tmp_path, scenes=[scene], **content), tmp_path / "data", tmp_path)
    assert [cell.views for cell in cells] == views
    for cell in cells:
        data = cell.train_arguments[cell.train_arguments.index("--data") + 1]
        copied = cell.views != "as is"
        assert data.startswith("scenes/garden-") if copied else data == str(folder)
        assert cell.split == ("test" if copied else "val"), "a copy holds what is evaluated as test"
        assert "nerfstudio-data" in cell.train_arguments


@pytest.mark.parametrize("file, used", [("images/1.png", True), ("images/4.png", True), ("images/2.png", False)])
def test_changed_files_of_a_capture_give_a_new_copy_and_a_new_id(tmp_path, tiny_scene, file, used):
    folder = as_transforms_json(tiny_scene, tmp_path / "data" / "garden", count=8)
    arguments = {"eval-mode": "interval", "eval-interval": 4}  # frames 0 and 4 are evaluated
    scene = {"name": "garden", "dataparser": "nerfstudio-data", "arguments": arguments}
    read = experiment(tmp_path, scenes=[scene], views=[{"indices": [0, 2]}], resolution=8)
    (before,) = plan_cells(read, tmp_path / "data", tmp_path)
    Image.new("RGBA", (100, 100), "red").save(folder / file)
    (after,) = plan_cells(read, tmp_path / "data", tmp_path)
    assert (after.id != before.id) == used


def test_ids_depend_on_the_files_as_they_are_written(tmp_path, tiny_scene):
    """Not on how they are read: results of versions that read them in another way stay valid."""
    scene, folder = BenchmarkScene("tiny"), as_transforms_json(tiny_scene, tmp_path / "garden", count=8)
    read = experiment(tmp_path, resolution=8)
    content = {split: json.loads((tiny_scene / f"transforms_{split}.json").read_text()) for split in SPLITS}
    splits = {"train": content["train"]["frames"], "val": content["val"]["frames"]}
    splits["test"] = content["test"]["frames"][::8]
    images = [file_hash(tiny_scene / f"{frame['file_path']}.png") for frames in splits.values() for frame in frames]
    cameras = [(tiny_scene / f"transforms_{split}.json").read_text() for split in SPLITS]
    expected = short_hash(__version__, splits, cameras, images, 8)
    assert _plan_copy(read, scene, Views(), tiny_scene)[0] == expected

    splits = {"train": [f"images/{i}.png" for i in (1, 2, 3, 5, 6, 7)], "val": ["images/0.png", "images/4.png"]}
    splits["test"] = splits["val"]
    files = {f"images/{i}.png": file_hash(folder / "images" / f"{i}.png") for i in range(8)}
    meta = json.loads((folder / "transforms.json").read_text())
    scene = BenchmarkScene("garden", "nerfstudio-data", {"eval-mode": "interval", "eval-interval": 4})
    expected = short_hash(__version__, splits, meta, files, 8)
    assert _plan_capture_copy(read, scene, Views(), folder)[0] == expected

    meta["frames"][1]["fl_x"] = 70.0  # which was ignored at first
    (folder / "transforms.json").write_text(json.dumps(meta))
    ignored = short_hash(__version__, splits, meta, files, 8)
    assert _plan_capture_copy(read, scene, Views(), folder)[0] != ignored


def test_which_way_up_photos_are_counts_for_copies_that_are_reduced(tmp_path, tiny_scene, monkeypatch):
    """It was ignored at first."""
    scene = BenchmarkScene("garden", "nerfstudio-data", {"eval-mode": "interval", "eval-interval": 4})
    folder = as_transforms_json(tiny_scene, tmp_path / "garden", count=8)
    contents = {}
    for resolution in (8, None):
        for told in (False, True):
            for untold in ([], [folder / "images" / "0.png"]):
                monkeypatch.setattr(FewShotCapture, "orientations", Orientations(frozenset([told]), untold))
                read = experiment(tmp_path, resolution=resolution)
                contents[resolution, told, len(untold)] = _plan_capture_copy(read, scene, Views(), folder)[0]
    assert contents[8, False, 1] != contents[8, True, 1] and len(set(contents.values())) == 3, contents


def test_views_that_a_capture_lacks_are_rejected_with_its_name(tmp_path, tiny_scene):
    as_transforms_json(tiny_scene, tmp_path / "data" / "garden", count=4)
    scene = {"name": "garden", "dataparser": "nerfstudio-data"}
    with pytest.raises(UserError, match="Scene garden, 9 farthest: the training split has 4 views"):
        plan_cells(experiment(tmp_path, scenes=[scene], views=[{"count": 9}]), tmp_path / "data", tmp_path)


def test_views_that_a_scene_lacks_are_rejected_with_its_name(plan):
    with pytest.raises(UserError, match="Scene tiny, blender-8: .*the training split has views 0 to 7"):
        plan(views=[{"protocol": "blender-8"}])
