"""A cell neither reads another configuration nor writes outside of its folder."""

from pathlib import Path

import pytest
import tyro
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

from dietnerf_ns.bench.cell import slug
from dietnerf_ns.bench.train_cell import check_files, unique_names
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import cell

PLACE = ["--output-dir", "cells", "--experiment-name", "a", "--timestamp", "run"]


def checked(*settings):
    config = tyro.cli(AnnotatedBaseConfigUnion, args=["dietnerf-tiny", *PLACE, *settings])
    check_files(config, cell("a", train_arguments=("dietnerf-tiny", *PLACE, *settings)))


@pytest.mark.parametrize(
    "settings, words",
    [
        (["--load-config", "other.yml"], "load-config other.yml: a cell has the settings of its experiment"),
        (["--relative-model-dir", "../../../../elsewhere"], "relative-model-dir: .* is outside of the cell's folder"),
        (["--relative-model-dir", "/elsewhere"], "relative-model-dir: /elsewhere is outside of the cell's folder"),
        (["--logging.relative-log-dir", "/elsewhere"], "logging.relative-log-dir: /elsewhere is outside"),
        (["--experiment-name", "../b"], "relative-model-dir: .* is outside of the cell's folder"),
        (["--output-dir", "/elsewhere"], "relative-model-dir: .* is outside of the cell's folder"),
        (["--timestamp", "../../../x"], "relative-model-dir: .* is outside of the cell's folder"),
    ],
)
def test_settings_that_leave_the_folder_are_refused(settings, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        checked(*settings)
    assert not list(tmp_path.iterdir())


def test_the_settings_of_a_planned_cell_are_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked("--relative-model-dir", "weights")


@pytest.mark.parametrize("parts", [("..", ".."), ("../../etc", "a"), ("/", "a\\b"), ("a\0b", "c\nd"), ("ä", "")])
def test_a_cells_name_is_one_file_name(parts):
    name = slug(*parts)
    assert not set(name) & set("/\\\0\n") and name not in ("", ".", "..")


def test_photos_of_one_name_have_files_of_their_own():
    photos = [Path("a/0.png"), Path("b/0.png"), Path("b/1.png")]
    assert unique_names(photos) == ["0_0", "0_1", "1"]
    photos = [Path("x/a.png"), Path("y/a.png"), Path("z/a_1.png"), Path("w/a.png")]
    assert unique_names(photos) == ["a_0", "a_2", "a_1", "a_3"]
