"""Published numbers: consistent in themselves, shown beside ours only where they are comparable."""

import json

import pytest

from dietnerf_ns.bench.published import EIGHT_SCENES, MEAN_OF_EIGHT, paper_tables, read_published
from dietnerf_ns.bench.summary import read_results
from dietnerf_ns.data.protocols import PROTOCOLS
from tests.helpers.bench import write_fake_results

TEST_FRAMES = range(0, 200, 8)


def tables(tmp_path, scenes=("lego",), views="blender-8", size=(400, 400), **values):
    psnr = {(scene, views, "ours", 0): 24.0 for scene in scenes}
    values = {"frames": TEST_FRAMES} | values
    return "\n".join(paper_tables(read_results(write_fake_results(tmp_path, psnr, size=size, **values))))


def test_means_are_the_means_of_their_scenes_and_everything_has_a_source():
    for entry in read_published():
        assert entry.source and entry.convention
        assert tuple(entry.resolution) == PROTOCOLS[entry.protocol].resolution
        assert set(entry.values) <= EIGHT_SCENES | {MEAN_OF_EIGHT}
        scenes = [values for scene, values in entry.values.items() if scene != MEAN_OF_EIGHT]
        if len(scenes) == 8:
            for column in range(len(scenes[0])):
                mean = float(sum(values[column] for values in scenes) / 8)
                assert float(entry.values[MEAN_OF_EIGHT][column]) == pytest.approx(mean, abs=1.5e-3), entry.method


def test_published_rows_stand_beside_ours_with_protocol_convention_and_source(tmp_path):
    text = tables(tmp_path)
    assert "computes them: blender-8" in text
    assert "| lego | **ours** | 24.00 |" in text
    line = next(line for line in text.splitlines() if "DietNeRF, 200k steps |" in line)
    assert "23.90 | 0.863 | 0.110" in line and "published; the paper's metrics" in line and "ajayjain/DietNeRF" in line
    assert "Not comparable with ours" not in text and MEAN_OF_EIGHT not in text


def test_means_are_shown_when_all_eight_scenes_are_there(tmp_path):
    text = tables(tmp_path, scenes=sorted(EIGHT_SCENES))
    assert f"| {MEAN_OF_EIGHT} | FreeNeRF | 24.26 |" in text and "| ship | NeRF, 200k steps | 12.93" in text


def test_a_mean_without_all_cells_is_not_beside_the_published_means(tmp_path):
    scenes = sorted(EIGHT_SCENES)
    psnr = {(scene, "blender-8", method, seed): 24.0 for method in "abc" for scene in scenes for seed in (0, 1)}
    missing = [place for place in psnr if place[2] == "b" and place[0] not in ("chair", "ship")]
    missing += [("ship", "blender-8", "c", 1)]
    write_fake_results(tmp_path, psnr, missing=missing, size=(400, 400), frames=TEST_FRAMES)
    text = "\n".join(paper_tables(read_results(tmp_path)))
    beside = [line for line in text.splitlines() if line.startswith(f"| {MEAN_OF_EIGHT} |")]
    assert any("**a**" in line for line in beside) and any("FreeNeRF" in line for line in beside)
    assert not any("**b**" in line or "**c**" in line for line in beside)
    assert "| unfinished mean of 2 scenes: chair, ship | **b** | 24.00 " in text
    assert f"| unfinished mean of 8 scenes: {', '.join(scenes)} | **c** | 24.00 " in text


def test_eight_other_scenes_are_not_the_eight(tmp_path):
    text = tables(tmp_path, scenes=[f"other{index}" for index in range(8)])
    assert "| mean of 8 scenes: other0, other1" in text and "published" not in text


def test_a_metric_that_a_cell_lacks_has_no_mean(tmp_path):
    results = read_results(write_fake_results(tmp_path, {("lego", "v", "a", seed): 20.0 for seed in (0, 1)}))
    del results.rows[0].values["paper/ssim"]
    assert "| lego | **a** | 20.00 ± 0.00 | this run, 2 cells |" in "\n".join(paper_tables(results))


@pytest.mark.parametrize("cells, shown", [("10", True), ("0", False), ("12", False)], ids=["all", "one", "another"])
def test_fid_is_the_mean_over_the_seeds_of_all_finished_cells(tmp_path, cells, shown):
    write_fake_results(tmp_path, {("lego", "v", "a", seed): 20.0 for seed in (0, 1)})
    scores = {"paper/fid": 77.0, "paper/kid": 0.1}
    pools = [
        {"views": "v", "method": "a", "seed": seed, "cells": [f"cell{number}"]} | scores | {"paper/fid": 77.0 + seed}
        for seed, number in enumerate(cells)
    ]
    (tmp_path / "pooled.json").write_text(json.dumps({"pools": pools, "left_out": {}}))
    assert ("| 77.5 ± 0.7 | 0.1000 ± 0.0000 |" in "\n".join(paper_tables(read_results(tmp_path)))) == shown


def test_fid_of_pools_of_different_scenes_has_no_mean(tmp_path):
    """As in a report that joins two machines' scenes of one seed, or when a seed's cell crashed."""
    cells = {("lego", "v", "a", 0): 20.0, ("ship", "v", "a", 0): 20.0, ("lego", "v", "a", 1): 20.0}
    write_fake_results(tmp_path, cells)
    for parts, shown in [
        ([["cell0", "cell1"], ["cell2"]], False),
        ([["cell0"], ["cell1"], ["cell2"]], False),
        ([["cell0", "cell1", "cell2"]], True),
    ]:
        pools = [{"views": "v", "method": "a", "cells": part, "paper/fid": 77.0, "paper/kid": 0.1} for part in parts]
        (tmp_path / "pooled.json").write_text(json.dumps({"pools": pools, "left_out": {}}))
        assert ("77.0" in "\n".join(paper_tables(read_results(tmp_path)))) == shown, parts


def test_other_protocols_have_a_table_of_their_own_that_says_what_differs(tmp_path):
    comparable, other = tables(tmp_path, scenes=sorted(EIGHT_SCENES)).split("**Not comparable because the protocol")
    for method, reason in [
        ("FSGS", "first 8 views and the whole test set in its released code"),
        ("3DGS", "first 8 views and the whole test set in FSGS's released code"),
        ("3DGS", "view 76 instead of 75 in CoR-GS's code"),
        ("DNGaussian", "view 76 instead of 75 in its code"),
        ("CoR-GS", "view 76 instead of 75 in its code"),
        ("DIP-GS", "view 76 instead of 75, and pseudo-views with the test poses"),
        ("BinocularGS", "view 76 instead of 75 in its code"),
        ("SplatFields", "other views, chosen by k-means"),
        ("NeRF, all 100 views", "trained on all 100 photos"),
    ]:
        assert f"| {method} |" not in comparable
        assert any(f"| {method} |" in line and line.endswith(f"| {reason} |") for line in other.splitlines())
    assert "| DropGaussian |" in comparable and "**ours**" not in other


def test_all_photos_are_another_protocol_than_the_occluded_one(tmp_path):
    comparable, other = tables(tmp_path, views="lego-14-occluded").split("**Not comparable because the protocol")
    assert "all 100 views" in other and "all 100 views" not in comparable and "| DietNeRF |" in comparable


def test_no_digit_is_shown_that_the_source_does_not_have(tmp_path):
    eight = tables(tmp_path, scenes=sorted(EIGHT_SCENES))
    assert [kid for kid in ("0.0760", "0.0467", "0.0046", "0.0045", "0.0013") if f"| {kid} |" not in eight] == []
    assert "| Neural Volumes | – | – | – | 239.5 | 0.117 |" in eight
    (tmp_path / "four").mkdir()
    four = tables(tmp_path / "four", scenes=sorted(EIGHT_SCENES), views="blender-4")
    assert "| 306.2 | 0.158 |" in four and "| 159.4 | 0.029 |" in four
    assert "| Mip-NeRF | 20.89 | 0.830 | 0.168 |" in eight, "nor one left out"


@pytest.mark.parametrize(
    "values, words",
    [
        ({"size": (100, 100)}, "at 400x400 pixels, this run is at 100x100"),
        ({"evaluate": "val"}, "validation split"),
        ({"training_views": {"blender-8": 4}}, "cells of this run were trained on 4 photos"),
        ({"frames": range(0, 40, 8)}, "is published for 25 test frames, 0, 8, ..., 192. This run has 5, of which 5"),
    ],
)
def test_results_that_are_not_comparable_have_a_table_of_their_own_with_the_reason(tmp_path, values, words):
    ours, theirs = tables(tmp_path, **values).split("**Not comparable with ours:**")
    assert "what differs" not in theirs.split("**Not comparable because")[0]
    assert "**ours**" in ours and "DietNeRF" not in ours
    assert words in theirs.splitlines()[0] and "DietNeRF" in theirs


@pytest.mark.parametrize("colour", ["white", "black"])
def test_results_on_another_colour_than_white_are_not_comparable(tmp_path, colour):
    psnr = {("lego", "blender-8", "ours", 0): 24.0}
    folder = write_fake_results(tmp_path, psnr, size=(400, 400), frames=TEST_FRAMES)
    content = json.loads((folder / "experiment.json").read_text())
    content["experiment"]["scenes"] = [{"name": "lego", "arguments": {"alpha_color": colour}}]
    (folder / "experiment.json").write_text(json.dumps(content))
    text = "\n".join(paper_tables(read_results(folder)))
    assert ("this run has another alpha-color for lego." in text) == (colour == "black")


def test_other_views_have_nothing_published(tmp_path):
    assert "published" not in tables(tmp_path, views="8 random 1")
