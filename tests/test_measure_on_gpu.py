"""The command for an hour on a GPU: what it runs is finished, resumed and ended in time. No GPU is needed here."""

import json
import subprocess
import sys
import time
import zipfile

import pytest
import yaml

from dietnerf_ns.bench.experiment import read_experiment
from tests.test_packaging import ROOT
from tools.measure_on_gpu import (
    METHODS,
    SCENES,
    Budget,
    Parts,
    clip_error,
    counts_of,
    environment_of_parts,
    experiment,
    machine,
)


def parts(tmp_path, seconds=60.0):
    return Parts(tmp_path, Budget(seconds, time.monotonic()), environment_of_parts(None, tmp_path))


def states(tmp_path):
    return {name: part["state"] for name, part in json.loads((tmp_path / "gpu.json").read_text()).items()}


def test_a_finished_part_is_not_repeated_and_a_failed_one_is(tmp_path):
    count = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(int(sys.argv[2]))"
    for status in (3, 0, 3):
        parts(tmp_path).run("part", "-c", count, tmp_path / "runs", status)
    assert (tmp_path / "runs").read_text() == "xx" and states(tmp_path) == {"part": "finished"}
    parts(tmp_path).run("other", "-c", count, tmp_path / "other", 3)
    assert states(tmp_path) == {"part": "finished", "other": "failed with status 3"}


def test_results_of_a_rehearsal_are_not_taken_for_those_of_a_gpu(tmp_path, monkeypatch):
    found = json.dumps({"gpu": "a GPU", "cuda": "12", "python": "3.11", "packages": {}, "tinycudann": None})
    monkeypatch.setattr("tools.measure_on_gpu.MACHINE", f"print({found!r})")
    monkeypatch.setattr("tools.measure_on_gpu.CLIP", "print('no network')")
    rehearsed = machine(parts(tmp_path), tmp_path, rehearsal=True)
    assert machine(parts(tmp_path), tmp_path, rehearsal=True) == rehearsed
    with pytest.raises(SystemExit, match="of a rehearsal; choose another --out"):
        machine(parts(tmp_path), tmp_path, rehearsal=False)
    with pytest.raises(SystemExit, match="of other data"):
        machine(parts(tmp_path), tmp_path / "other", rehearsal=True)
    assert json.loads((tmp_path / "gpu.json").read_text())["machine"] == rehearsed
    assert rehearsed["clip"] == "no network"


def test_weights_that_are_not_there_in_time_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.measure_on_gpu.CLIP", "import time; time.sleep(60)")
    assert clip_error(parts(tmp_path, seconds=1)) == "out of time"
    monkeypatch.setattr("tools.measure_on_gpu.CLIP", "")
    assert clip_error(parts(tmp_path)) is None


def test_a_part_that_is_out_of_time_can_end_well_and_the_next_ones_are_named(tmp_path):
    wait = """
import sys, time
try:
    print("started", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(open(sys.argv[1], "w").write("kept") and 130)
"""
    both = parts(tmp_path, seconds=5)
    both.run("slow", "-IS", "-c", wait, tmp_path / "kept")
    both.run("next", "-c", "raise SystemExit('never')")
    assert states(tmp_path) == {"slow": "out of time", "next": "out of time"}
    assert (tmp_path / "kept").read_text() == "kept" and "started" in (tmp_path / "slow.log").read_text()


def test_all_methods_are_known_without_being_installed(tmp_path):
    environment = environment_of_parts(None, tmp_path)
    code = "from dietnerf_ns.nerfstudio_methods import METHODS; import nerfstudio.plugins.registry as r; "
    code += "print(sorted(name for name in r.discover_methods()[0] if name.startswith('dietnerf')))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    for name in ("dietnerf", "dietnerf-tiny", "dietnerf-nerfacto"):
        assert f"Loading method {name} from environment variable" in run.stdout and f"'{name}'" in run.stdout


def test_wheels_that_could_not_be_installed_are_installed_at_the_next_start(tmp_path):
    wheels, out = tmp_path / "wheels", tmp_path / "out"
    wheels.mkdir()
    out.mkdir()
    wheel = wheels / "one-1.0-py3-none-any.whl"
    wheel.write_bytes(b"half of it")
    with pytest.raises(subprocess.CalledProcessError):
        environment_of_parts(wheels, out)
    info = "one-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("one.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: one\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    assert str(out / "site") in environment_of_parts(wheels, out)["PYTHONPATH"]
    assert [file.name for file in out.iterdir()] == ["site"] and (out / "site" / "one.py").exists()


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_the_experiment_can_be_read(clip, rehearsal, tmp_path):
    file = tmp_path / "lego.yaml"
    file.write_text(json.dumps(experiment("lego", clip=clip, rehearsal=rehearsal)))
    read = read_experiment(file)
    assert [method.title for method in read.methods].count("CLIP") == clip
    assert read.resolution == (50 if rehearsal else 400) and len(read.methods) == len(METHODS) - (not clip)


def test_scenes_and_nerfacto_are_those_of_the_paper_comparison():
    paper = yaml.safe_load((ROOT / "configs" / "blender_8view.yaml").read_text())
    assert set(paper["scenes"]) == set(SCENES)
    (nerfacto,) = (method for method in paper["methods"] if method["name"] == "nerfacto")
    assert nerfacto in METHODS


def test_skipped_tests_are_counted(tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text("import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no GPU')\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={tmp_path}/t.xml",
        str(test),
    ]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert counts_of(tmp_path / "t.xml") == {"tests": 2, "failures": 0, "errors": 0, "skipped": 1}
