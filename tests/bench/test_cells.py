"""Which cells an experiment has, and what changes their ids."""

import pytest

from dietnerf_ns.bench.cells import plan_cells
from dietnerf_ns.bench.experiment import as_flags
from dietnerf_ns.errors import UserError
from tests.bench.conftest import experiment

TWO = [{"name": "dietnerf-tiny", "label": "default"}, {"name": "nerfacto", "overrides": {"max-num-iterations": 7}}]


@pytest.fixture
def plan(tmp_path):
    return lambda **content: plan_cells(experiment(tmp_path, resolution=8, **content), None, tmp_path)


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


def test_arguments_of_ns_train(plan):
    (cell,) = plan(methods=TWO[1:], overrides={"max-num-iterations": 5, "mixed-precision": False})
    assert cell.split == "test", "where a few-shot copy holds what is evaluated"
    arguments = cell.train_arguments
    assert arguments[0] == "nerfacto" and arguments[-1] == "blender-data"
    settings = dict(zip(arguments[1:-1:2], arguments[2:-1:2], strict=True))
    assert settings["--max-num-iterations"] == "7", "a method's own setting comes first"
    assert settings["--mixed-precision"] == "False" and settings["--machine.seed"] == "0"
    assert settings["--data"].startswith("scenes/tiny-all_views-")
    assert cell.config_file.as_posix() == f"cells/{cell.id}/nerfacto/run/config.yml"


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
    from nerfstudio.configs.method_configs import all_methods

    before = plan()[0].id
    monkeypatch.setattr(all_methods["dietnerf-tiny"].pipeline.semantic, "weight", 0.5)
    assert plan()[0].id != before


def test_a_scene_of_another_dataparser_is_used_as_it_is(tmp_path):
    (tmp_path / "data" / "fern").mkdir(parents=True)
    scene = {"name": "fern", "dataparser": "nerfstudio-data", "arguments": {"eval-mode": "interval"}}
    read = experiment(tmp_path, scenes=[scene], views=[{"count": 2}, {"count": 3}], evaluate="val")
    (cell,) = plan_cells(read, tmp_path / "data", tmp_path)
    assert cell.views == "as is", "once, whatever the views of other scenes are"
    assert cell.split == "val"
    assert cell.train_arguments[-3:] == ("nerfstudio-data", "--eval-mode", "interval")
    assert cell.train_arguments[cell.train_arguments.index("--data") + 1] == str(tmp_path / "data" / "fern")


def test_views_that_a_scene_lacks_are_refused_with_its_name(plan):
    with pytest.raises(UserError, match="Scene tiny, blender-8: .*the training split has views 0 to 7"):
        plan(views=[{"protocol": "blender-8"}])
