"""Published numbers: consistent in themselves, shown beside ours only where they are comparable."""

import pytest

from dietnerf_ns.bench.published import EIGHT_SCENES, MEAN_OF_EIGHT, paper_tables, read_published
from dietnerf_ns.bench.summary import read_results
from dietnerf_ns.views import PROTOCOLS
from tests.bench.conftest import write_fake_results


def tables(tmp_path, scenes=("lego",), views="blender-8", size=(400, 400), **values):
    psnr = {(scene, views, "ours", 0): 24.0 for scene in scenes}
    return "\n".join(paper_tables(read_results(write_fake_results(tmp_path, psnr, size=size, **values))))


def test_means_are_the_means_of_their_scenes_and_everything_has_a_source():
    for entry in read_published():
        assert entry.source and entry.convention
        assert tuple(entry.resolution) == PROTOCOLS[entry.protocol].resolution
        assert set(entry.values) <= EIGHT_SCENES | {MEAN_OF_EIGHT}
        scenes = [values for scene, values in entry.values.items() if scene != MEAN_OF_EIGHT]
        if len(scenes) == 8:
            for column in range(len(scenes[0])):
                mean = sum(values[column] for values in scenes) / 8
                assert entry.values[MEAN_OF_EIGHT][column] == pytest.approx(mean, abs=1.5e-3), entry.method


def test_published_rows_stand_beside_ours_with_protocol_convention_and_source(tmp_path):
    said = tables(tmp_path)
    assert "computes them: blender-8" in said
    assert "| lego | **ours** | 24.00 |" in said
    line = next(line for line in said.splitlines() if "DietNeRF, 200k steps |" in line)
    assert "23.90 | 0.863 | 0.110" in line and "published; the paper's metrics" in line and "ajayjain/DietNeRF" in line
    assert "Not comparable" not in said and MEAN_OF_EIGHT not in said


def test_means_are_shown_when_all_eight_scenes_are_there(tmp_path):
    said = tables(tmp_path, scenes=sorted(EIGHT_SCENES))
    assert f"| {MEAN_OF_EIGHT} | FreeNeRF | 24.26 |" in said and "| ship | NeRF, 200k steps | 12.93" in said


@pytest.mark.parametrize(
    "values, words",
    [({"size": (100, 100)}, "at 400x400 pixels, this run is at 100x100"), ({"evaluate": "val"}, "validation split")],
)
def test_what_is_not_comparable_is_apart_and_says_why(tmp_path, values, words):
    ours, theirs = tables(tmp_path, **values).split("**Not comparable with ours:**")
    assert "**ours**" in ours and "DietNeRF" not in ours
    assert words in theirs.splitlines()[0] and "DietNeRF" in theirs


def test_other_views_have_nothing_published(tmp_path):
    assert "published" not in tables(tmp_path, views="8 random 1")
