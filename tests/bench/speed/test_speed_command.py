"""dietnerf-bench speed as a user types it."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from dietnerf_ns.bench.machine import describe_machine
from dietnerf_ns.bench.speed import run as speed_run
from dietnerf_ns.bench.speed.candidate import Candidate, Data
from dietnerf_ns.bench.speed.report import roofline_section, split_section, write_report
from dietnerf_ns.bench.speed.run import Probe, SpeedSettings, encoder_settings, plan, run_probe
from dietnerf_ns.bench.speed.semantic_step import PARTS
from dietnerf_ns.commands.bench import Speed
from dietnerf_ns.methods import TINY_SCENE
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.commands import in_this_process
from tests.helpers.markdown import DOCS

KEPT = {"rays": 1000, "again": 0, "kept": True}
RECOMPUTED = {"rays": 5000, "again": 3000, "kept": False}
SPLIT = {"median": 10.0, "low": 9.0, "high": 12.0, "n": 5}


def settings(**changes):
    usual = {
        "method": "dietnerf-tiny",
        "data": Data(str(TINY_SCENE)),
        "parts": ("steps", "memory", "semantic-step", "floor", "job", "target"),
        "sizes": (56, 112),
        "rounds": 2,
        "warmup_seconds": 0.0,
        "psnr": 20.0,
        "against": "dietnerf-vanilla",
        "patience": 20.0,
    }
    return SpeedSettings(**(usual | changes))


@pytest.mark.slow
def test_the_command_measures_and_reports(tmp_path):
    """On the shipped scene, with a PSNR that is reached at once and another method that is stopped at once."""
    out = tmp_path / "out"
    small = ["--scale", 0.4, "--sizes", 12, "--rounds", 2, "--warmup-seconds", 0, "--psnr", 5, "--patience", 0.01]
    small += ["--against", "dietnerf-tiny"]
    parts = ["--parts", "semantic-step", "target"]
    result = in_this_process("dietnerf-bench", "speed", "--out", out, *parts, *small, cwd=tmp_path)
    assert f"Report: {out / 'speed.md'}" in result.stdout
    content, page = json.loads((out / "speed.json").read_text()), (out / "speed.md").read_text()
    assert content["settings"]["method"] == "dietnerf-tiny" and content["machine"]["cpu_cores"] >= 1
    assert len(content["measured"]["semantic step, time"]["entries"]) == 2
    ours, against = (content["measured"][f"target, {who}"]["entries"][0] for who in ("ours", "against"))
    assert ours["seconds"] > 0 and against["label"] == "dietnerf-tiny lambda 0"
    assert (out / "speed.png").stat().st_size > 10_000
    assert "## Time of a semantic step" in page and "## Time to a PSNR on test views" in page
    assert str(tmp_path) not in page and str(TINY_SCENE.parent) not in json.dumps(content)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"method": "nerfacto"}, "--method nerfacto: has no semantic loss"),
        ({"method": "dietnerff"}, "Unknown method 'dietnerff': did you mean"),
        ({"against": "nerfacto"}, "--against nerfacto: has no semantic loss"),
        ({"method": "dietnerf-splat"}, "--method dietnerf-splat: trains on whole images, and methods are compared"),
        ({"against": "dietnerf-splat"}, "--against dietnerf-splat: trains on whole images, and methods are compared"),
        ({"method": "dietnerf-vanilla"}, "--method dietnerf-vanilla: the roofline of its model is not known"),
        ({"protocol": "blender-4"}, "--protocol blender-4: view 86 does not exist, --data has 8 training views"),
        ({"scale": 0.0}, "--scale 0.0: must be above 0"),
        ({"warmup_seconds": -1.0}, "--warmup-seconds -1.0: must be at least 0"),
        ({"rounds": 1}, "--rounds 1: must be at least 2"),
        ({"sizes": (4,)}, "--sizes .*: must be at least 8 pixels"),
        ({"data": Path("nowhere")}, "nowhere: not a NeRF-Synthetic scene"),
        ({"protocol": "blender-80"}, "Unknown protocol 'blender-80': did you mean"),
        ({"method": "kplanes"}, "--method kplanes: nerfstudio knows this method, but it is not installed"),
    ],
)
def test_wrong_input_is_rejected_before_anything_is_written(given, message, tmp_path, monkeypatch):
    monkeypatch.setattr(speed_run, "run", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match=message):
        Speed(out=tmp_path / "out", **given).main()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "split, parts, refused",
    [
        ("train", ("steps",), True),
        ("test", ("steps", "target"), True),
        ("test", ("steps", "memory"), False),
        ("val", ("job",), True),
        ("val", ("steps",), False),
    ],
)
def test_every_split_that_is_measured_must_exist(split, parts, refused, tmp_path):
    scene = tmp_path / "scene"
    shutil.copytree(TINY_SCENE, scene)
    (scene / f"transforms_{split}.json").unlink()
    checked = settings(data=Data(str(scene)), parts=parts)
    with pytest.raises(UserError, match=f"transforms_{split}.json is missing") if refused else nullcontext():
        checked.check()


def test_an_earlier_row_of_the_other_method_does_not_outlive_a_failure_of_ours(tmp_path, monkeypatch):
    earlier = {"target, against": {"entries": [{"label": "old"}]}, "floor": {"entries": []}}
    monkeypatch.setattr(speed_run, "read_earlier_measurements", lambda *_: dict(earlier))
    monkeypatch.setattr(speed_run, "run_probe", lambda *_: {"entries": [], "reason": "crashed"})
    measured = speed_run.run(settings(parts=("target",)), tmp_path)["measured"]
    assert sorted(measured) == ["floor", "target, ours"]


def test_an_interrupted_measurement_says_what_is_kept(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(speed_run, "run_probe", interrupted)
    with pytest.raises(SystemExit, match="130"):
        Speed(out=tmp_path / "out", parts=("steps",)).main()
    assert f"Interrupted: the parts that were measured are kept in {tmp_path / 'out'}." in capsys.readouterr().err


def test_measurements_of_something_else_are_not_mixed_in(tmp_path):
    photos = {"folder": "lego", "photos": "0a1b2c3d", "scale": 0.25}
    described = {"method": "dietnerf-tiny", "data": photos, "psnr": 20.0, "parts": ["floor"]}
    kept = {"floor": {"entries": []}}
    content = {"machine": describe_machine(), "settings": described, "notes": [], "measured": kept}
    (tmp_path / "speed.json").write_text(json.dumps(content))
    others = content | {"settings": described | {"parts": ["steps"]}}
    assert speed_run.read_earlier_measurements(tmp_path, others) == kept
    assert speed_run.read_earlier_measurements(tmp_path / "new", others) == {}
    for other in (
        {"settings": described | {"method": "dietnerf"}},
        {"settings": described | {"psnr": 25.0}},
        {"machine": describe_machine() | {"cpu_cores": 1000}},
        {"notes": ["CLIP has random weights."]},
    ):
        with pytest.raises(UserError, match="contains measurements of another machine, or with other settings"):
            speed_run.read_earlier_measurements(tmp_path, content | other)
    others = content | {"settings": described | {"data": photos | {"photos": "4e5f6a7b"}}}
    with pytest.raises(UserError, match="contains measurements of other photos than those of --data"):
        speed_run.read_earlier_measurements(tmp_path, others)


def test_other_photos_in_a_folder_of_the_same_name_are_not_mixed_in(tmp_path, monkeypatch):
    monkeypatch.setattr(speed_run, "run_probe", lambda *_: {"entries": []})
    first, same, other_camera, other_photo = (
        shutil.copytree(TINY_SCENE, tmp_path / name / "lego") for name in ("a", "b", "c", "d")
    )
    cameras = other_camera / "transforms_test.json"
    cameras.write_text(cameras.read_text() + "\n")
    photo = next(other_photo.glob("train/*.png"))
    photo.write_bytes(photo.read_bytes() + b"0")
    out = tmp_path / "out"
    speed_run.run(settings(data=Data(str(first)), parts=("floor",)), out)
    content = speed_run.run(settings(data=Data(str(same)), parts=("job",)), out)
    assert list(content["measured"]) == ["floor", "whole job"]
    for other in (other_camera, other_photo):
        with pytest.raises(UserError, match="contains measurements of other photos"):
            speed_run.run(settings(data=Data(str(other)), parts=("job",)), out)


def test_measurements_of_an_older_version_are_refused_in_one_line(tmp_path):
    shutil.copy(DOCS / "benchmarks" / "speed_cpu" / "speed.json", tmp_path)
    content = {"machine": {}, "settings": {"data": {"photos": "0a1b2c3d"}}, "notes": []}
    with pytest.raises(UserError) as error:
        speed_run.read_earlier_measurements(tmp_path, content)
    message = f"--out {tmp_path}: contains measurements of an older version of this command; choose another folder."
    assert str(error.value) == message


@pytest.mark.parametrize("written", ['{"machine": {', "[]", '{"measured": {}}'])
def test_damaged_measurements_are_named(written, tmp_path):
    (tmp_path / "speed.json").write_text(written)
    with pytest.raises(UserError, match=r"speed\.json: cannot be read .*choose another --out"):
        speed_run.read_earlier_measurements(tmp_path, {"machine": {}, "settings": {}, "notes": []})


def test_all_parts_are_planned_with_the_same_rays_for_all(monkeypatch):
    probes = plan(settings(), Candidate("dietnerf-tiny", "dietnerf-tiny", 640))
    steps = probes[0]
    assert [c.label for c in steps.candidates] == ["nerfacto", "dietnerf-tiny lambda 0", "dietnerf-tiny"]
    assert {c.rays for c in steps.candidates} == {640}
    assert [p.probe for p in probes[1:]] == ["memory"] * 3 + ["semantic step"] * 2 + ["floor", "job"]


def test_half_an_entry_on_a_full_disk_costs_no_other_part(tmp_path, monkeypatch):
    """The probe is a script in place of Python, which writes to the file of its results as a probe does."""
    probe = tmp_path / "python"
    probe.write_text("""#!/bin/sh
printf '{"size": 56}\\n{"size": 112, "recom' > "$4"
echo "OSError: No space left on device"
exit 1
""")
    probe.chmod(0o755)
    monkeypatch.setattr(speed_run.sys, "executable", str(probe))
    content = speed_run.run(settings(parts=("semantic-step", "job")), tmp_path / "out")
    names = ["semantic step, time", "semantic step, memory", "whole job"]
    reason = "ended with 1: OSError: No space left on device"
    assert content["measured"] == {name: {"entries": [{"size": 56}], "reason": reason} for name in names}


@pytest.mark.slow
def test_a_probe_that_crashes_says_why(tmp_path):
    probe = Probe("broken", "memory", [Candidate("x", "dietnerf-tiny", 8, {"pipeline.semantic.every": 0})], {})
    measured = run_probe(probe, Data(str(TINY_SCENE)), tmp_path)
    assert measured["entries"] == [] and "semantic.every 0: must be at least 1" in measured["reason"]


def test_the_other_methods_time_is_a_multiple_of_ours():
    measured = {"target, ours": {"entries": [{"seconds": 12.0}]}}
    ours, against = speed_run.target_probes(settings(), Candidate("ours", "dietnerf-tiny", 640), measured)
    assert against.options["max_seconds"] == 240.0
    assert against.candidates[0].overrides == {"pipeline.semantic.weight": 0.0}
    unreached = {"target, ours": {"entries": [{"seconds": None}]}}
    assert len(list(speed_run.target_probes(settings(), Candidate("ours", "dietnerf-tiny", 640), unreached))) == 1


def test_without_clips_weights_a_network_of_the_same_shape_is_measured(tmp_path, monkeypatch):
    def offline(*_):
        raise UserError("The CLIP weights cannot be loaded.")

    monkeypatch.setattr(speed_run, "load_open_clip", offline)
    overrides, notes = encoder_settings(SemanticConfig(clip_model="ViT-S-32-alt"), tmp_path)
    monkeypatch.undo()
    assert speed_run.load_open_clip("ViT-S-32-alt", overrides["pipeline.semantic.clip_pretrained"], "cpu") is not None
    assert "random weights" in notes[0]
    assert encoder_settings(SemanticConfig(encoder="embedded"), tmp_path) == ({}, [])


def test_the_report_has_the_roofline_and_what_was_not_measured(tmp_path):
    parts = {name: SPLIT for name in ("render forward", "encoder forward", "encoder backward", "render backward")}
    bound = {"operations": 1e9, "bytes": 1e6, "milliseconds": 2.0}
    of_a_ray = {"operations": 2e5, "bytes": 1e3}
    row = {"rays": 640, "milliseconds": SPLIT, "plain": SPLIT, "ratio": {}}
    measured = {
        "steps": {"entries": [row | {"label": "nerfacto"}, row | {"label": "plain", "ratio": {"nerfacto": SPLIT}}]},
        "memory of plain": {"entries": [{"label": "plain", "reason": "not on this system"}]},
        "memory of ours": {"entries": [{"label": "ours", "start": 900.0, "plain": 100.0, "semantic": 200.0}]},
        "semantic step, time": {
            "entries": [
                {"size": 56, "recompute": True, "renders": [KEPT, KEPT | {"rays": 1100}]} | parts,
                {"size": 56, "recompute": False, "reason": "OutOfMemoryError"},
            ]
        },
        "floor": {
            "entries": [
                {
                    "limits": {"bytes_per_second": 1e10, "operations_per_second": 1e11},
                    "size": 56,
                    "parts": {"plain step": bound, "encoder forward": bound},
                    "per_ray": dict.fromkeys(("render", "render again", "gradient"), of_a_ray),
                }
            ]
        },
        "whole job": {
            "entries": [
                {
                    "label": "ours",
                    "seconds": 100.0,
                    "training": {"seconds": 70.0, "steps": 1200, "peak_memory_mib": 1100.0},
                    "psnr": 24.0,
                    "ssim": 0.9,
                }
            ]
        },
        "target, ours": {"entries": [], "reason": "ended with 1: boom"},
    }
    content = {
        "machine": {"gpu": "none"},
        "settings": {"data": {"folder": "lego", "protocol": "blender-8", "scale": 0.25}},
        "notes": [],
        "measured": measured,
    }
    page = write_report(content, tmp_path).read_text()
    assert "| plain | 640 | 10.0 [9.0, 12.0] | 100.00 |" in page
    assert "| 1.10 |" in page, "(900 + 200) / (900 + 100)"
    assert "| plain step | 1.00 | 1 | 2.00 | 10.0 | 20 % |" in page
    assert "| render forward | 0.21 | 1 | 2.10 | 10.0 | 21 % |" in page
    assert "The bounds of its render are those of 1050 rays, 0 of them rendered again (activations kept)." in page
    assert "| 56 | False | – | – | – | – | – | – | – | OutOfMemoryError |" in page
    assert "| ours | 100 | 70 | 1200 | 1100 | 24.00 | 0.900 |" in page
    assert "- memory of plain: not on this system" in page and "- target, ours: ended with 1: boom" in page


@pytest.mark.parametrize(
    ("renders", "row"),
    [
        ([KEPT] * 3, "| 112 | True | activations kept | 1000 | 0 |"),
        ([RECOMPUTED] * 3, "| 112 | True | recomputed | 5000 | 3000 |"),
        ([RECOMPUTED, KEPT, RECOMPUTED], "| 112 | True | recomputed in 2 of 3 | 5000 | 3000 |"),
    ],
)
def test_rows_of_a_semantic_step_say_what_was_rendered(renders, row):
    entry = {"size": 112, "recompute": True, "renders": renders} | dict.fromkeys(PARTS, SPLIT)
    assert row in split_section({"semantic step, time": {"entries": [entry]}})[1]


def test_a_roofline_without_rendered_rays_has_no_bound_of_the_render():
    bound = {"operations": 1e9, "bytes": 1e6, "milliseconds": 2.0}
    limits = {"bytes_per_second": 1e10, "operations_per_second": 1e11}
    floor = {"limits": limits, "size": 168, "parts": {"encoder forward": bound}, "per_ray": {}}
    _, text, rows = roofline_section({"floor": {"entries": [floor]}})
    assert "the part `semantic-step` counts if 168 is one of its `--sizes`" in text
    assert "encoder forward" in rows and "render" not in rows
