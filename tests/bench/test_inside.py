"""Paths in users' files stay inside the folders."""

import json
import shutil

import pytest

from dietnerf_ns.bench.cells import plan_cells
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import experiment, write_fake_results


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "train/../../outside"])
def test_a_scene_whose_photos_are_outside_is_refused(name, tmp_path, tiny_scene):
    shutil.copytree(tiny_scene, tmp_path / "data" / "scene")
    file = tmp_path / "data" / "scene" / "transforms_train.json"
    content = json.loads(file.read_text())
    shutil.copy(tmp_path / "data" / "scene" / "train" / "r_0.png", tmp_path / "data" / "outside.png")
    content["frames"][0]["file_path"] = name
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="outside is outside of the scene's folder"):
        plan_cells(experiment(tmp_path, scenes=["scene"]), tmp_path / "data", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("outside.png"))


@pytest.mark.parametrize(
    "setting", ["load-config", "load_config", "load-dir", "relative-model-dir", "logging.relative_log_dir"]
)
def test_settings_of_files_are_refused(setting, tmp_path):
    with pytest.raises(UserError, match=f"overrides: {setting} is set by the benchmark itself"):
        experiment(tmp_path, overrides={setting: "x"})


def test_the_data_of_a_dataparser_are_refused(tmp_path):
    scene = {"name": "tiny", "dataparser": "blender-data", "arguments": {"data": "/elsewhere"}}
    with pytest.raises(UserError, match="arguments of tiny: data is set by the benchmark itself"):
        experiment(tmp_path, scenes=[scene])


@pytest.mark.parametrize("identity", ["../x", "/x", "..", "a/b", ""])
def test_results_with_cells_elsewhere_are_refused(identity, tmp_path):
    from dietnerf_ns.bench.summary import read_results

    folder = write_fake_results(tmp_path, {("s", "v", "a", 0): 20.0})
    content = json.loads((folder / "experiment.json").read_text())
    content["cells"][0]["id"] = identity
    (folder / "experiment.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not the name of a folder"):
        read_results(folder)
