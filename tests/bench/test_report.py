"""The report, from made-up result files."""

import csv
import json
import shutil

import pytest
from PIL import Image

from dietnerf_ns.bench.plots import draw_by_number
from dietnerf_ns.bench.report import write_report
from dietnerf_ns.bench.summary import read_results
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import write_fake_results

PSNR = {
    ("lego", "8 random 0", "plain", 0): 20.0,
    ("lego", "8 random 1", "plain", 0): 21.0,
    ("lego", "8 random 0", "diet", 0): 21.0,
    ("lego", "8 random 1", "diet", 0): 23.0,
    ("lego", "8 random 0", "broken", 0): 0.0,
}


@pytest.fixture
def report(tmp_path):
    write_fake_results(tmp_path, PSNR, missing=[("lego", "8 random 0", "broken", 0)])
    return write_report(tmp_path)


def test_it_opens_with_its_plots(report):
    beginning = report.read_text().split("## ")[0]
    for name in ("bars", "differences", "curves", "contact_sheet"):
        assert f"(plots/{name}.png)" in beginning
        assert min(Image.open(report.parent / "plots" / f"{name}.png").size) > 100


def test_dollar_signs_in_names_are_drawn_as_they_are(tmp_path):
    psnr = {("a$$b", "8 random 0", method, 0): 20.0 for method in ("$x^$", "plain")}
    write_fake_results(tmp_path, psnr)
    assert "(plots/contact_sheet.png)" in write_report(tmp_path).read_text()


def test_numbers_are_those_of_the_result_files(report):
    text = report.read_text()
    assert "4 of 5 cells" in text
    assert "| plain | 2 of 2 | 20.50 | 0.205 |" in text
    assert "| diet | plain | +1.50 [-4.85, +7.85] (n = 2) |" in text, (
        "t with one degree of freedom 12.706, deviation 0.7071"
    )
    assert "n is the number of scenes, each of which counts with the mean of its differences" in text
    assert "| diet | plain | +2.00 (n = 1) |" in section(text, "## Difference from plain, 8 random 1")
    assert "| diet | 1 of 1 | 23.00 | 0.230 |" in section(text, "## Only 8 random 1")
    assert "| broken | 0 of 1 | – |" in text
    assert "| diet | 2 of 2 | 10 | 10.0 | 900 | 700 |" in text, "seconds, steps/s, MiB"
    assert "| peak GPU memory by torch (MiB) |" in text


def section(text: str, heading: str) -> str:
    """The text under a heading, up to the next one."""
    return text.split(f"{heading}\n")[1].split("\n## ", maxsplit=1)[0]


def test_one_method_alone_is_not_compared_with_anything(tmp_path):
    write_fake_results(tmp_path, {key: psnr for key, psnr in PSNR.items() if key[2] == "plain"})
    text = write_report(tmp_path).read_text()
    assert "| plain | 2 of 2 | 20.50 |" in text and "## Difference" not in text


def test_a_component_is_compared_with_the_row_it_is_added_to(report):
    components = section(report.read_text(), "## Effect of each component")
    assert "| diet | plain | +1.50" in components
    assert "| broken | diet | – |" in components, "each with the row before it, not with the baseline"


def test_missing_results_and_the_machine_are_listed(report):
    text = report.read_text()
    assert "- cell4 (cells/cell4/log.txt)" in text
    assert "- paper/lpips: URLError: no network" in text
    assert "| Linux x86_64 | 2 | none | 2.9.0 |" in text
    assert "| plain | dietnerf | max-num-iterations 5, pipeline.semantic.clip-pretrained clip.pt |" in text
    for written in (text, (report.parent / "results.json").read_text()):
        assert str(report.parent) not in written and "/somewhere" not in written


def test_steps_in_equal_time_are_listed_if_the_time_was_limited(tmp_path, report):
    assert "equal time" not in report.read_text()
    text = write_report(write_fake_results(tmp_path / "limited", PSNR, seconds=7.5)).read_text()
    steps = section(text, "## Steps in equal time")
    assert "its steps had taken 7.5 s" in steps
    assert "| method | cells | time of the steps (s) | steps | steps configured |" in steps
    assert "| diet | 2 of 2 | 7.5 | 100 | 400 |" in steps
    assert "training/step_seconds" in (tmp_path / "limited" / "results.csv").read_text()


def test_views_far_from_the_photos_have_a_table_of_their_own(tmp_path, report):
    assert "from every photo" not in report.read_text()
    angles = (5.0, 45.0, 60.0, 44.9)
    text = write_report(write_fake_results(tmp_path / "far", PSNR, unseen_from=45, degrees=angles)).read_text()
    far = section(text, "## Views 45 degrees and more from every photo")
    assert "| lego | 8 random 1 | 2 | 4 |" in far
    assert "| plain | 2 of 2 | -32.00 | 0.205 |" in far, "20.5 and 52.5 degrees"
    difference = section(text, "## Difference from plain, 45 degrees and more from every photo")
    assert "| diet | plain | +1.50 [-4.85, +7.85] (n = 2) |" in difference
    assert "| plain | 2 of 2 | 20.50 | 0.205 |" in text.split("## ")[1], "all views"


def test_it_says_first_which_scenes_were_read_as_they_are(tmp_path, report):
    assert "Read as" not in report.read_text()
    text = write_report(write_fake_results(tmp_path / "as is", {("fern", "as is", "plain", 0): 20.0})).read_text()
    assert "**Read as they are: fern.** Each method reads the folder" in text.split("## ")[0]


def test_a_model_whose_panels_are_in_another_order_is_told(tmp_path, report):
    """An error map at the right end of `img` would count as the render."""
    assert "Check the metrics" not in report.read_text()
    folder = write_fake_results(tmp_path / "other", PSNR)
    for path in (folder / "cells").glob("*/result.json"):
        result = json.loads(path.read_text())
        result["images"][0]["paper/psnr"] -= 4.5 if "2" in path.parent.name else 0.004
        path.write_text(json.dumps(result))
    beginning = write_report(folder).read_text().split("## ")[0]
    assert beginning.count("Check the metrics") == 1
    assert "**Check the metrics of diet.** The PSNR that the model computes" in beginning
    assert "differ by up to 4.50 dB in an image" in beginning


@pytest.mark.parametrize("degrees", [(), (10.0,)], ids=["old results", "no such view"])
def test_cells_without_views_far_from_the_photos_do_not_count(tmp_path, degrees):
    text = write_report(write_fake_results(tmp_path, PSNR, unseen_from=45, degrees=degrees)).read_text()
    far = section(text, "## Views 45 degrees and more from every photo")
    assert "| lego | 8 random 0 | 0 | 1 |" in far and "| plain | 0 of 2 |" in far


def test_lines_over_the_number_of_photos(tmp_path):
    psnr = {
        (scene, views, method, seed): base + 10 * seed
        for scene, base in (("lego", 20.0), ("mic", 30.0))
        for views in ("4 photos", "8 photos", "the same 8")
        for method in ("plain", "diet")
        for seed in (0, 1)
    }
    numbers = {"4 photos": 4, "8 photos": 8, "the same 8": 8}
    missing = [place for place in psnr if place[:3] == ("mic", "4 photos", "diet")]
    write_fake_results(tmp_path, psnr, missing=missing, training_views=numbers)
    beginning = write_report(tmp_path).read_text().split("## ")[0]
    plots = [f"by_number{part}" for part in ("", "_0_lego", "_1_mic")]
    assert [f"(plots/{name}.png)" in beginning for name in plots] == [True] * 3
    results = read_results(tmp_path)
    mean, mic = draw_by_number(results), draw_by_number(results, "mic")
    assert [axis.get_ylabel() for axis in mean.axes] == ["PSNR (dB)", "SSIM"]
    plain, diet = mean.axes[0].lines
    assert plain.get_label() == "plain" and plain.get_xydata().tolist() == [[4, 30], [8, 30]]
    assert diet.get_xydata().tolist() == [[8, 30]], "no mean over other scenes"
    assert mic.axes[0].lines[0].get_xydata().tolist() == [[4, 35], [8, 35]]
    band = mean.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((30 - 50**0.5, 30 + 50**0.5)), "of 25 and 35"


def test_one_number_of_photos_is_no_line(tmp_path):
    numbers = {"8 random 0": 8, "8 random 1": 8}
    assert "by_number" not in write_report(write_fake_results(tmp_path, PSNR, training_views=numbers)).read_text()


def test_csv_and_json_hold_every_cell(report):
    rows = list(csv.DictReader((report.parent / "results.csv").open()))
    assert [float(row["nerfstudio/psnr"]) for row in rows] == [20, 21, 21, 23]
    assert rows[3]["method"] == "diet" and rows[3]["views"] == "8 random 1"
    results = json.loads((report.parent / "results.json").read_text())
    assert results["cells"][0]["images"] == [
        {"name": "r_0", "nerfstudio/psnr": 20.0, "nerfstudio/ssim": 0.2, "paper/psnr": 20.0, "paper/ssim": 0.1}
    ]


def test_one_method_has_no_differences(tmp_path):
    write_fake_results(tmp_path, {("lego", "v", "plain", 0): 20.0})
    assert "differences.png" not in write_report(tmp_path).read_text()


def test_it_can_be_written_elsewhere_and_without_photos(tmp_path):
    write_fake_results(tmp_path / "results", PSNR)
    write_report(tmp_path / "results", to=tmp_path / "docs" / "it")
    report = write_report(tmp_path / "results", to=tmp_path / "docs" / "it", contact_sheet=False)
    assert report == tmp_path / "docs" / "it" / "report.md" and "contact_sheet" not in report.read_text()
    assert sorted(path.name for path in (report.parent / "plots").iterdir()) == [
        "bars.png",
        "curves.png",
        "differences.png",
    ]
    assert (report.parent / "results.json").is_file() and not (tmp_path / "results" / "report.md").exists()


def test_the_sheet_shows_the_images_that_exist(tmp_path):
    write_fake_results(tmp_path, PSNR)
    shutil.rmtree(tmp_path / "cells" / "cell0" / "renders")
    assert "contact_sheet.png" in write_report(tmp_path).read_text()
    for folder in (*tmp_path.glob("cells/*/renders"), *tmp_path.glob("cells/*/photos")):
        shutil.rmtree(folder)
    assert "contact_sheet.png" not in write_report(tmp_path).read_text()


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"mean_colour": 0.4}, "on photos of different colours (mean 0.900 and 0.400)"),
        ({"resolution": [8, 4]}, "at different sizes"),
        ({"images": []}, "on different images (1 and 0)"),
        ({"training_views": 4}, "after training on different numbers of photos (8 and 4)"),
    ],
)
def test_cells_that_were_not_evaluated_on_the_same_photos(tmp_path, changed, words):
    write_fake_results(tmp_path, PSNR)
    for number, values in enumerate(({"mean_colour": 0.9, "training_views": 8}, {}, {"mean_colour": 0.9} | changed)):
        file = tmp_path / "cells" / f"cell{number}" / "result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))
    text = write_report(tmp_path).read_text()
    assert f"**Not comparable: lego, 8 random 0.** `cell0` and `cell2` were evaluated {words}" in text
    assert text.count("Not comparable") == 1


def test_cells_that_were_evaluated_on_the_same_photos(report):
    assert "Not comparable" not in report.read_text()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_value_that_is_not_finite_is_named(tmp_path, value):
    text = write_report(write_fake_results(tmp_path, PSNR | {("lego", "8 random 1", "diet", 0): value})).read_text()
    assert "| diet | 2 of 2 | – |" in text and "| plain | 2 of 2 | 20.50 |" in text
    assert f"- nerfstudio/psnr: {value} in cell3" in section(text, "## Metrics left out")


def test_a_report_that_cannot_be_written_is_one_line_of_error(tmp_path):
    write_fake_results(tmp_path, PSNR)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--to .*file: cannot be written: File exists"):
        write_report(tmp_path, to=tmp_path / "file")
