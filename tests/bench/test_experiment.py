"""Experiment files: what they mean, and what is refused."""

from pathlib import Path

import pytest

from dietnerf_ns.bench.experiment import Views, read_experiment
from dietnerf_ns.utils.errors import UserError
from tests.bench.conftest import experiment

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_experiments_name_only_what_exists(path):
    assert read_experiment(path).methods


def test_a_name_alone_is_a_scene_or_a_method(tmp_path):
    read = experiment(tmp_path, scenes=["tiny", {"name": "fern", "dataparser": "colmap"}])
    assert [scene.name for scene in read.scenes] == ["tiny", "fern"]
    assert read.scenes[1].dataparser == "colmap"
    assert read.baseline_title == "dietnerf-tiny", "the first method"
    assert read.views == (Views(),) and read.seeds == (0,)


@pytest.mark.parametrize(
    "views, label",
    [
        (Views(), "all views"),
        (Views(protocol="blender-8"), "blender-8"),
        (Views(indices=(3, 1)), "views 3 1"),
        (Views(count=8, strategy="random", seed=2), "8 random 2"),
        (Views(count=8), "8 farthest"),
    ],
)
def test_labels_of_views(views, label):
    assert views.label == label


@pytest.mark.parametrize(
    "content, words",
    [
        ({"sceens": []}, ["unknown key sceens", "scenes"]),
        ({"methods": [{"name": "nerfacto", "overides": {}}]}, ["methods.0.overides", "name, label, overrides"]),
        ({"views": [{"strategy": "best"}]}, ["views.0.strategy 'best'", "'first', 'random' or 'farthest'"]),
        ({"views": [{"protocol": "blender-9"}]}, ["'blender-9'", "'blender-8', 'blender-4'"]),
        (
            {"views": [{"count": 4, "strategy": "random", "seed": -1}]},
            ["views.0.seed -1", "greater than or equal"],
        ),
        ({"evaluate": "train"}, ["evaluate 'train'", "'test' or 'val'"]),
        ({"seeds": []}, ["seeds", "at least 1"]),
        ({"methods": ["nerfactor"]}, ["Unknown method 'nerfactor'", "nerfacto"]),
        ({"methods": ["nerfacto", "nerfacto"]}, ["same label", "`label`"]),
        ({"scenes": ["tiny", {"name": "tiny", "dataparser": "colmap"}]}, ["scenes: tiny: two have the same name"]),
        ({"views": [{"count": 4}, {"count": 4, "seed": 1}]}, ["views: 4 farthest: two are the same choice"]),
        ({"seeds": [0, 1, 0, 1]}, ["seeds: 0, 1: two are the same"]),
        ({"baseline": "plain"}, ["Unknown baseline 'plain'", "dietnerf-tiny"]),
        ({"overrides": {"pipeline.model.neer-plane": 1}}, ["pipeline.model.neer-plane", "near_plane"]),
        ({"overrides": {"pipeline.semantic.encoder": "clip"}}, ["ns-train dietnerf-tiny", "'clip'", "'open-clip'"]),
        ({"scenes": [{"name": "tiny", "arguments": {"colour": "red"}}]}, ["Unrecognized options: --colour"]),
        ({"overrides": {"machine.seed": 1}}, ["machine.seed is set by the benchmark"]),
        ({"scenes": [{"name": "fern", "dataparser": "colnap"}]}, ["Unknown dataparser 'colnap'", "colmap"]),
    ],
)
def test_wrong_files_are_refused_in_one_line_with_what_is_allowed(tmp_path, content, words):
    with pytest.raises(UserError) as error:
        experiment(tmp_path, **content)
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_experiment(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("scenes: [")
    with pytest.raises(UserError, match="is no YAML"):
        read_experiment(tmp_path / "broken.yaml")
