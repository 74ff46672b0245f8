"""Several folders of results as one: parts of an experiment, and stored reports."""

import json
from dataclasses import asdict

import pytest

from dietnerf_ns.bench.experiment import SimilarityEncoderConfig
from dietnerf_ns.bench.joined import read_joined
from dietnerf_ns.bench.report import write_report
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import write_fake_results

LEGO = {("lego", "v", "plain", 0): 20.0, ("lego", "v", "diet", 0): 21.0}
SHIP = {("ship", "v", "plain", 0): 10.0, ("ship", "v", "diet", 0): 14.0}


def change(folder, **values):
    """Change settings of the experiment."""
    file = folder / "experiment.json"
    content = json.loads(file.read_text())
    content["experiment"] |= values
    file.write_text(json.dumps(content))
    return folder


@pytest.fixture
def lego(tmp_path):
    return write_fake_results(tmp_path / "lego", LEGO, ids="lego")


@pytest.fixture
def ship(tmp_path):
    return write_fake_results(tmp_path / "ship", SHIP, ids="ship")


def test_the_cells_of_all_folders_in_one_report(tmp_path, lego, ship):
    report = write_report(lego, ship, to=tmp_path / "both")
    text = report.read_text()
    assert "4 of 4 cells" in text
    assert "| plain | 2 of 2 | 15.00 |" in text
    assert "| diet | plain | +2.50" in text, "the mean of +1 on lego and +4 on ship"
    assert "| plain | dietnerf | max-num-iterations 5, pipeline.semantic.clip-pretrained clip.pt |" in text
    assert (report.parent / "plots" / "contact_sheet.png").is_file()


def test_cells_are_in_the_order_of_scenes_views_methods_and_seeds(tmp_path, lego):
    later = {("lego", "v", "plain", 1): 22.0, ("lego", "w", "diet", 0): 1.0, ("lego", "v", "other", 0): 2.0}
    more = write_fake_results(tmp_path / "more", later, ids="more")
    change(more, methods=json.loads((lego / "experiment.json").read_text())["experiment"]["methods"])
    places = [(row.views, row.method, row.seed) for row in read_joined([lego, more]).rows]
    assert places == [("v", "plain", 0), ("v", "plain", 1), ("v", "diet", 0), ("v", "other", 0), ("w", "diet", 0)]


def test_a_stored_report_is_extended_in_place(tmp_path, lego, ship):
    stored = write_report(lego, to=tmp_path / "docs").parent
    write_report(stored, ship, to=stored)
    again = read_joined([stored])
    assert [row.scene for row in again.rows] == ["lego", "lego", "ship", "ship"]
    assert again.baseline == "plain"
    original = read_joined([lego, ship])
    assert [row.values for row in again.rows] == [row.values for row in original.rows]


def test_the_report_of_a_stored_one_has_the_same_tables_but_no_curves_and_photos(tmp_path, lego):
    first = write_report(lego, to=tmp_path / "docs")
    second = write_report(first.parent, to=tmp_path / "copy")
    assert second.read_text().split("## ", 1)[1] == first.read_text().split("## ", 1)[1]
    assert not (second.parent / "plots" / "contact_sheet.png").exists()
    assert not (second.parent / "plots" / "curves.png").exists()
    joined = write_report(first.parent, write_fake_results(tmp_path / "ship", SHIP, ids="ship"), to=tmp_path / "joined")
    assert not (joined.parent / "plots" / "curves.png").exists(), "they would be those of ship alone"


def test_a_stored_report_that_is_rewritten_keeps_the_plots_that_it_cannot_draw(tmp_path, lego, ship):
    folder = write_report(lego, to=tmp_path / "docs").parent
    text, curves = (folder / "report.md").read_text(), (folder / "plots" / "curves.png").read_bytes()
    assert write_report(folder).read_text() == text and (folder / "plots" / "curves.png").read_bytes() == curves
    assert "contact_sheet" not in write_report(folder, contact_sheet=False).read_text()
    assert not (folder / "plots" / "contact_sheet.png").exists()
    write_report(folder, ship, to=folder)
    assert not (folder / "plots" / "curves.png").exists(), "other cells"


def test_parts_of_other_machines_are_named_before_the_numbers(tmp_path, lego, ship):
    assert "Different machines" not in write_report(lego, ship, to=tmp_path / "same").read_text()
    file = ship / "cells" / "ship1" / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps(result | {"machine": result["machine"] | {"torch": "9.9"}}))
    text = write_report(lego, ship, to=tmp_path / "both").read_text()
    torch = json.loads((lego / "cells" / "lego0" / "result.json").read_text())["machine"]["torch"]
    assert "**Different machines or versions.** Times are not comparable between them. " in text.split("## ")[0]
    assert f"torch: {torch} (plain; diet), 9.9 (diet)." in text


def test_a_cell_counts_from_the_folder_that_finished_it(tmp_path, lego):
    unfinished = write_fake_results(tmp_path / "half", LEGO, ids="lego", missing=[("lego", "v", "diet", 0)])
    assert len(read_joined([unfinished]).rows) == 1
    joined = read_joined([unfinished, lego])
    assert [row.values["nerfstudio/psnr"] for row in joined.rows] == [20.0, 21.0]
    assert joined.rows[0].folder == unfinished / "cells" / "lego0", "the first folder's"


def test_fid_of_one_group_counts_once(tmp_path, lego):
    """A stored report of an earlier version has no hash of the renders; the results folder has one."""
    parts = [lego, write_fake_results(tmp_path / "again", LEGO, ids="lego")]
    for folder, entry in zip(parts, [{"paper/fid": 7.0}, {"paper/fid": 7.0, "content": "ab"}], strict=True):
        pool = {"views": "v", "method": "diet", "seed": 0, "cells": ["lego1"], "renders": 1, "references": 1} | entry
        (folder / "pooled.json").write_text(json.dumps({"pools": [pool], "left_out": {}}))
    assert ["content" in pool for pool in read_joined(parts).fid_kid["pools"]] == [False], "the first folder's"


def test_unfinished_cells_are_stored_and_named(tmp_path):
    unfinished = write_fake_results(tmp_path / "half", LEGO, missing=[("lego", "v", "diet", 0)])
    report = write_report(unfinished, to=tmp_path / "docs")
    assert "1 of 2 cells" in write_report(report.parent, to=tmp_path / "copy").read_text()


def test_a_stored_report_without_finished_cells_is_refused(tmp_path, lego):
    stored = write_report(lego, to=tmp_path / "docs").parent / "results.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"cells": []}))
    with pytest.raises(UserError, match="results.json: no cell was finished"):
        read_joined([stored.parent])


def test_results_that_do_not_belong_together(tmp_path, lego, ship):
    validation = write_fake_results(tmp_path / "val", SHIP, ids="val", evaluate="val")
    with pytest.raises(UserError, match="val: evaluate is val, but test in .*lego"):
        read_joined([lego, validation])
    with pytest.raises(UserError, match="ship: plain has other settings here"):
        read_joined([lego, change(ship, overrides={"max-num-iterations": 6})])
    again = write_fake_results(tmp_path / "again", LEGO, ids="other")
    with pytest.raises(UserError, match="lego0 and other0: the same cell, but with other data"):
        read_joined([lego, again])


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"test_stride": 2}, "ship: test_stride is 2, but 8 in .*lego"),
        ({"val_frames": 5}, "ship: val_frames is 5, but 25 in .*lego"),
        ({"similarity": {"encoder": "open-clip"}}, "ship: similarity is {'encoder': 'open-clip'}, but .*'embedded'"),
    ],
)
def test_parts_that_were_measured_in_another_way(lego, ship, settings, words):
    """A file of a version that did not store a setting has its default."""
    with pytest.raises(UserError, match=words):
        read_joined([lego, change(ship, **settings)])
    change(ship, test_stride=8, val_frames=25, similarity=asdict(SimilarityEncoderConfig()))
    assert len(read_joined([lego, ship]).rows) == 4


@pytest.mark.parametrize(
    "ours, theirs, words",
    [
        (
            {
                "scenes": [
                    {"name": "garden", "arguments": {"eval-mode": "all"}, "views": [{"label": "few", "count": 4}]}
                ]
            },
            {"scenes": [{"name": "garden", "arguments": {}}]},
            "scene garden",
        ),
        (
            {"views": [{"label": "few", "count": 4}]},
            {"scenes": [{"name": "s", "views": [{"label": "few", "count": 5}]}]},
            "views few of s",
        ),
    ],
)
def test_scenes_and_views_of_one_name_that_are_not_the_same(lego, ship, ours, theirs, words):
    with pytest.raises(UserError, match=f"ship: {words}: other settings here"):
        read_joined([change(lego, **ours), change(ship, **theirs)])


def test_two_scenes_may_have_other_views_under_one_label(lego, ship):
    scenes = [{"name": name, "views": [{"label": "few", "indices": [number]}]} for number, name in enumerate("ab")]
    for of_lego, of_ship in ((scenes, scenes[:1]), (scenes[1:], scenes[:1])):
        assert len(read_joined([change(lego, scenes=of_lego), change(ship, scenes=of_ship)]).rows) == 4


def test_parts_of_a_scene_may_have_other_views(lego, ship):
    scene = {"name": "garden", "dataparser": "colmap", "arguments": {}}
    change(lego, scenes=[scene | {"views": [{"label": "", "count": 4}]}])
    assert len(read_joined([lego, change(ship, scenes=[scene | {"views": [{"label": "", "count": 8}]}])]).rows) == 4


def test_the_encoders_file_may_have_another_folder(lego, ship):
    for folder, place in ((lego, "clip.pt"), (ship, "/somewhere/clip.pt")):
        change(folder, similarity={"encoder": "open-clip", "clip_pretrained": place})
    assert len(read_joined([lego, ship]).rows) == 4


def test_parts_of_one_scene_that_were_evaluated_on_different_images(tmp_path, lego):
    more = write_fake_results(tmp_path / "more", {("lego", "v", "plain", 1): 22.0}, ids="more", degrees=(1.0, 2.0))
    with pytest.raises(UserError, match="lego.* and more0: evaluated on different images of lego"):
        read_joined([lego, more])


def test_a_damaged_stored_report(tmp_path):
    (tmp_path / "results.json").write_text('{"name": "x"}')
    with pytest.raises(UserError, match="results.json: this is no result of dietnerf-bench: baseline"):
        read_joined([tmp_path])
