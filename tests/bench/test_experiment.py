"""Experiment files: how they are read, and what is rejected."""

from contextlib import nullcontext
from datetime import date
from pathlib import Path

import pytest

from dietnerf_ns.bench.experiment import Views, read_experiment
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import experiment

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
    "views, title",
    [
        (Views(), "all views"),
        (Views(protocol="blender-8"), "blender-8"),
        (Views(indices=(3, 1)), "views 3 1"),
        (Views(count=8, strategy="random", seed=2), "8 random 2"),
        (Views(count=8), "8 farthest"),
        (Views(indices=tuple(range(14)), label="14 photos"), "14 photos"),
    ],
)
def test_titles_of_views(views, title):
    assert views.title == title


@pytest.mark.parametrize(
    "content, words",
    [
        ({"views": [{"count": 3, "indices": [0, 1]}]}, ["views", "indices and count contradict each other"]),
        ({"sceens": []}, ["unknown key sceens", "scenes"]),
        ({"methods": [{"name": "nerfacto", "overides": {}}]}, ["methods.0.overides", "name, label, overrides"]),
        ({"views": [{"strategy": "best"}]}, ["views.0.strategy 'best'", "'first', 'random' or 'farthest'"]),
        (
            {"views": [{"protocol": "blender-9"}]},
            ["Unknown protocol 'blender-9'", "blender-8 or blender-4"],
        ),
        (
            {"views": [{"count": 4, "strategy": "random", "seed": -1}]},
            ["views.0.seed -1", "greater than or equal"],
        ),
        ({"evaluate": "train"}, ["evaluate 'train'", "'test' or 'val'"]),
        ({"seeds": []}, ["seeds", "at least 1"]),
        ({"methods": ["nerfactor"]}, ["Unknown method 'nerfactor'", "nerfacto"]),
        ({"methods": ["nerfacto", "nerfacto"]}, ["methods: nerfacto listed more than once", "`label`"]),
        ({"scenes": ["tiny", {"name": "tiny", "dataparser": "colmap"}]}, ["scenes: tiny listed more than once"]),
        ({"views": [{"count": 4}, {"count": 4, "seed": 1}]}, ["views: 4 farthest listed more than once"]),
        ({"seeds": [0, -1]}, ["seeds.1 -1", "greater than or equal to 0"]),
        ({"seeds": [2**32]}, ["seeds.0 4294967296", "less than 4294967296"]),
        ({"methods": [{"name": "nerfacto", "seeds": [-1]}]}, ["methods.0.seeds.0 -1", "greater than or equal to 0"]),
        ({"seeds": [0, 1, 0, 1]}, ["seeds: 0, 1 listed more than once"]),
        ({"baseline": "plain"}, ["Unknown baseline 'plain'", "dietnerf-tiny"]),
        ({"overrides": {"pipeline.model.neer-plane": 1}}, ["pipeline.model.neer-plane", "near_plane"]),
        ({"overrides": {"pipeline.semantic.encoder": "clip"}}, ["ns-train dietnerf-tiny", "'clip'", "'open-clip'"]),
        ({"scenes": [{"name": "tiny", "arguments": {"colour": "red"}}]}, ["Unrecognized options: --colour"]),
        ({"overrides": {"machine.seed": 1}}, ["machine.seed is set by the benchmark"]),
        ({"scenes": [{"name": "fern", "dataparser": "colnap"}]}, ["Unknown dataparser 'colnap'", "colmap"]),
        ({"views": [{"protocol": "blender-8", "label": "8"}]}, ["label 8: a protocol's name is for its own views"]),
        ({"views": [{"indices": [0], "label": "blender-8"}]}, ["label blender-8: a protocol's name"]),
        ({"views": [{"count": 4, "label": "a"}, {"count": 5, "label": "a"}]}, ["views: a listed more than once"]),
        (
            {"scenes": [{"name": "tiny", "views": [{"cuont": 1}]}]},
            ["scenes.0.views.0.cuont", "protocol, indices, count"],
        ),
        ({"scenes": [{"name": "tiny", "views": [{"protocol": "blender-9"}]}]}, ["Unknown protocol 'blender-9'"]),
        ({"scenes": [{"name": "tiny", "views": []}]}, ["scenes.0.views", "at least 1"]),
        (
            {"scenes": [{"name": "fern", "dataparser": "colmap", "views": [{"count": 1}]}]},
            ["views of fern: with colmap the folder is used as it is"],
        ),
        ({"methods": [{"name": "nerfacto", "seeds": [1]}]}, ["Unknown seed of nerfacto '1': known: 0."]),
        ({"methods": [{"name": "nerfacto", "seeds": [0, 0]}]}, ["seeds of nerfacto: 0 listed more than once"]),
        ({"methods": [{"name": "nerfacto", "seeds": []}]}, ["methods.0.seeds", "at least 1"]),
        ({"unseen_from": 0}, ["unseen_from 0", "greater than 0"]),
        ({"unseen_from": 181}, ["unseen_from 181", "less than or equal to 180"]),
        ({"seconds": 0}, ["seconds 0", "greater than 0"]),
        ({"seconds": float("inf")}, ["seconds inf", "finite number"]),
        ({"similarity": {"clip": "x"}}, ["similarity.clip", "encoder, clip_model, clip_pretrained, embedding"]),
        (
            {"similarity": {"encoder": "open-clip", "clip_pretrained": "weights/none.pt"}},
            ["similarity: clip_pretrained weights/none.pt: neither a file nor a tag"],
        ),
        ({"similarity": {"encoder": "open-clip", "clip_model": "ViT-B-33"}}, ["clip_model ViT-B-33", "ViT-B-32"]),
        ({"views": [{"strategy": "random", "seed": 3}]}, ["strategy random chooses a number of views", "`count`"]),
        ({"views": [{"count": 4, "seed": 1}]}, ["seed 1 is for a `count` with the strategy random"]),
        ({"views": [{"protocol": "blender-8", "seed": 1}]}, ["seed 1 is for a `count` with the strategy random"]),
        ({"methods": ["kplanes"]}, ["method kplanes: nerfstudio knows this method, but it is not installed"]),
        ({"overrides": {"machine.num-devices": 2}}, ["machine.num-devices is set by the benchmark"]),
        ({"overrides": {"project-name": date(2024, 1, 1)}}, ["overrides: project-name 2024-01-01", "quote a text"]),
        (
            {"scenes": [{"name": "tiny", "arguments": {"scale-factor": {"a": 1}}}]},
            ["arguments of tiny: scale-factor {'a': 1}", "a number, true, false or a list"],
        ),
        (
            {"methods": ["nerfacto"], "overrides": {"pipeline.model.proposal-net-args-list.2.hidden-dim": 32}},
            ["Unknown setting", "'2': known: 0, 1."],
        ),
    ],
)
def test_wrong_files_are_rejected_in_one_line_that_says_what_is_allowed(tmp_path, content, words):
    with pytest.raises(UserError) as error:
        experiment(tmp_path, **content)
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def test_a_setting_in_a_list_is_known_by_its_position(tmp_path):
    overrides = {"pipeline.model.proposal-net-args-list.0.hidden-dim": 32}
    assert experiment(tmp_path, methods=["nerfacto"], overrides=overrides).overrides == overrides


@pytest.mark.parametrize(
    "text, words",
    [
        ("seeds: [0]\nseeds: [1]\n", "lines 3 and 4 both have the key seeds; only the last would count"),
        ("overrides:\n  vis: a\n  steps-per-save: 1\n  vis: b\n", "lines 4 and 6 both have the key vis"),
        ("methods:\n- {name: nerfacto, name: tensorf}\n", None),
    ],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path, text, words):
    path = tmp_path / "experiment.yaml"
    path.write_text("scenes: [tiny]\nmethods: [dietnerf-tiny]\n" * (words is not None) + text)
    with pytest.raises(UserError, match=words or "both have the key name"):
        read_experiment(path)


def test_several_merged_mappings_all_count(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "scenes: [tiny]\nmethods:\n"
        "- &a {name: dietnerf-tiny, label: a}\n"
        "- &b {name: dietnerf-tiny, label: b, overrides: {steps-per-save: 7}}\n"
        "- {<<: *a, <<: *b, label: c}\n"
    )
    assert read_experiment(path).methods[2].overrides == {"steps-per-save": 7}


@pytest.mark.parametrize("where", ["overrides", "arguments of tiny"])
def test_a_setting_in_two_spellings_is_refused(where, tmp_path):
    settings = {"alpha-color": "white", "alpha_color": "black"}
    scene = {"name": "tiny", "arguments": settings} if where != "overrides" else "tiny"
    overrides = {"steps-per-save": 1, "steps_per_save": 2} if where == "overrides" else {}
    with pytest.raises(UserError, match=f"{where}: .* are the same setting; give it once"):
        experiment(tmp_path, scenes=[scene], overrides=overrides)


CLIP = {"pipeline.semantic.encoder": "open-clip"}


@pytest.mark.parametrize(
    "overrides, words",
    [
        (CLIP | {"pipeline.semantic.clip-model": "ViT-B-33"}, "pipeline.semantic.clip-model ViT-B-33: .*ViT-B-32"),
        (CLIP | {"pipeline.semantic.clip-pretrained": "weights.pt"}, "must be an absolute path"),
        (CLIP | {"pipeline.semantic.clip-pretrained": "no-such-tag"}, "neither a file nor a tag"),
        (CLIP | {"pipeline.semantic.clip-pretrained": "no-such-tag", "pipeline.semantic.weight": 0}, None),
        ({"pipeline.semantic.clip-pretrained": "no-such-tag"}, None),
    ],
)
def test_the_encoder_of_a_method_is_checked_before_anything_is_trained(overrides, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").touch()
    with nullcontext() if words is None else pytest.raises(UserError, match=f"overrides: .*{words}"):
        experiment(tmp_path, methods=[{"name": "dietnerf-tiny", "overrides": overrides}])


def test_an_empty_file_is_told_as_such(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("")
    with pytest.raises(UserError, match="the file: input should be"):
        read_experiment(path)


def test_weights_of_the_similarity_metric_are_found_from_the_results_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.pt").write_bytes(b"weights")
    read = experiment(tmp_path, similarity={"encoder": "open-clip", "clip_pretrained": "clip.pt"})
    assert read.similarity.clip_pretrained == str((tmp_path / "clip.pt").resolve())


def test_the_similarity_metric_needs_no_download_by_default(tmp_path):
    assert experiment(tmp_path).similarity.encoder == "embedded"
    read = experiment(tmp_path, similarity={"encoder": "open-clip", "embedding": "class-token"})
    assert (read.similarity.encoder, read.similarity.embedding) == ("open-clip", "class-token")
    assert read.similarity.clip_model == SemanticConfig().clip_model


def test_a_missing_file_and_a_file_that_is_not_yaml(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_experiment(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("scenes: [")
    with pytest.raises(UserError, match="is not valid YAML"):
        read_experiment(tmp_path / "broken.yaml")
