"""Cells in their own processes: in parallel, resumed, crashing, interrupted. The cells are fake."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dietnerf_ns.bench.processes import cell_environment, end_processes, peak_memory_mib, start_cell
from dietnerf_ns.bench.runner import LocalEngine, run_missing
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import cell, started
from tests.helpers.waiting import wait_until


@pytest.fixture(autouse=True)
def no_thread_setting(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)


def test_finished_cells_are_never_run_again(tmp_path, fake_cell_command, capsys):
    cells = [cell("one"), cell("two"), cell("three")]
    engine = LocalEngine(2, fake_cell_command)
    assert run_missing(cells[:2], tmp_path, engine) == []
    assert run_missing(cells, tmp_path, engine) == []
    assert sorted(started(tmp_path)) == ["one", "three", "two"]
    assert "Cells: 3 in total, 2 already finished, 1 to run." in capsys.readouterr().out


def test_a_crash_is_shown_and_the_other_cells_run(tmp_path, fake_cell_command, capsys):
    cells = [cell("crash"), cell("good")]
    crashed = run_missing(cells, tmp_path, LocalEngine(1, fake_cell_command))
    assert crashed == cells[:1]
    assert (tmp_path / "cells" / "good" / "result.json").is_file()
    shown = capsys.readouterr().err
    assert "crash crashed:" in shown and "no such luck" in shown and "2/2" in shown
    assert run_missing(cells, tmp_path, LocalEngine(1, fake_cell_command)) == cells[:1], "it is tried again"


@pytest.mark.parametrize("child", ["touch ready; exec sleep 60", "trap '' TERM; touch ready; sleep 60"])
def test_children_of_a_killed_cell_do_not_outlive_it(child, tmp_path):
    """A data loader's process would keep the log locked, and a processor busy beside the cells that follow."""
    program = tmp_path / "cell.py"
    program.write_text(
        "import os, pathlib, signal, subprocess, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        f"child = subprocess.Popen(['sh', '-c', {child!r}], cwd=folder)\n"
        "(folder / 'child').write_text(str(child.pid))\n"
        "while not (folder / 'ready').exists():\n"
        "    time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = cell("killed")
    engine = LocalEngine(1, (sys.executable, str(program)))
    assert run_missing([killed], tmp_path, engine) == [killed]
    number = int((tmp_path / killed.folder / "child").read_text())
    wait_until(lambda: not psutil.pid_exists(number), "the child has ended", seconds=5)
    assert run_missing([killed], tmp_path, engine) == [killed], "it can be tried again at once"


def test_interruption_ends_the_processes_and_keeps_what_is_finished(tmp_path, fake_cell_command):
    cells, before = [cell("good"), cell("sleep")], set(psutil.Process().children())
    with contextlib.closing(LocalEngine(2, fake_cell_command).run(cells, tmp_path)) as ended:
        assert next(ended) == cells[0]
        wait_until(lambda: "sleep" in started(tmp_path), "the fake cell has started", seconds=30)
        assert set(psutil.Process().children()) - before
    assert not set(psutil.Process().children()) - before, "no process is left"
    assert (tmp_path / "cells" / "good" / "result.json").is_file()
    assert not (tmp_path / "cells" / "sleep" / "result.json").exists()


def test_a_cell_whose_process_outlived_its_run_is_not_started_a_second_time(tmp_path, fake_cell_command):
    process = start_cell(cell("sleep"), tmp_path, fake_cell_command, cell_environment(0, 1))
    wait_until(lambda: "sleep" in started(tmp_path), "the fake cell has started", seconds=30)
    with pytest.raises(UserError, match="still training there, although the run that started it was killed"):
        run_missing([cell("sleep")], tmp_path, LocalEngine(1, fake_cell_command))
    end_processes([process])
    later = start_cell(cell("sleep"), tmp_path, fake_cell_command, cell_environment(0, 1))
    end_processes([later])
    assert process.poll() is not None and (tmp_path / "cells" / "sleep" / "cell.json").is_file()


def test_a_restarted_cell_starts_in_a_clean_folder(tmp_path, fake_cell_command):
    leftover = tmp_path / "cells" / "one" / "run" / "events"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    run_missing([cell("one")], tmp_path, LocalEngine(1, fake_cell_command))
    assert not leftover.exists()
    assert json.loads(Path(tmp_path / "cells" / "one" / "cell.json").read_text())["scene"] == "tiny"


def test_cells_share_the_processors_unless_the_user_set_the_threads(tmp_path, fake_cell_command, monkeypatch):
    def threads(identity):
        run_missing([cell(identity)], tmp_path, LocalEngine(2, fake_cell_command))
        return json.loads((tmp_path / "cells" / identity / "result.json").read_text())["threads"]

    assert threads("shared") == "4", "8 cores, 2 jobs"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads("own") == "3"
    assert cell_environment(0, 100, {})["OMP_NUM_THREADS"] == "1"


def test_peak_memory_is_that_of_the_process_alone():
    """Programs that are started inherit the peak of `getrusage`."""
    ballast = bytearray(300 * 2**20)
    ballast[::4096] = b"x" * len(range(0, len(ballast), 4096))
    program = "from dietnerf_ns.bench.processes import peak_memory_mib; print(peak_memory_mib())"
    output = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert 5 < float(output) < 200
    assert peak_memory_mib() > 300


def test_every_job_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [cell_environment(slot, 4, {})["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["0", "1", "0", "1"]
    assert cell_environment(1, 2, {"CUDA_VISIBLE_DEVICES": "5,7"})["CUDA_VISIBLE_DEVICES"] == "7"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert "CUDA_VISIBLE_DEVICES" not in cell_environment(0, 2, {})
