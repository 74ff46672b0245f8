"""dietnerf-bench as a user types it."""

import json
import os
import signal
import sys
import threading
import time

import psutil
import pytest
import torch
import yaml
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.utils import writer

from dietnerf_ns.bench.runner import LocalEngine
from dietnerf_ns.bench.train_cell import TrainingClock
from dietnerf_ns.commands.bench import Report, Run, main
from dietnerf_ns.training.trainer import SafeTrainer, SafeTrainerConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import started, write_fake_results
from tests.helpers.commands import in_this_process, ns
from tests.helpers.waiting import wait_until

FEW_STEPS = {"max-num-iterations": 8, "steps-per-eval-batch": 4, "pipeline.datamanager.train-num-rays-per-batch": 64}
PLAIN = {"name": "dietnerf-tiny", "label": "plain", "overrides": {"pipeline.semantic.weight": 0}}
BROKEN = {"name": "dietnerf-tiny", "label": "broken", "overrides": {"pipeline.semantic.every": 0}}


def experiment_file(folder, **content):
    shared = {"scenes": ["tiny"], "resolution": 40, "test_stride": 12, "overrides": FEW_STEPS}
    path = folder / "few.yaml"
    path.write_text(yaml.safe_dump(shared | content))
    return path


@pytest.mark.slow
def test_run_resume_and_report(tmp_path, monkeypatch):
    """Two real cells, one of which crashes; then the finished one, which is not run again. Means equal ns-eval's."""
    out = tmp_path / "out"
    both = experiment_file(tmp_path, methods=[PLAIN, BROKEN])
    first = ns("dietnerf-bench", "run", both, "--out", out, "--jobs", 2, cwd=tmp_path, check=False)
    assert first.returncode == 1, first.stdout
    assert "broken-s0" in first.stdout and "semantic.every 0: must be" in first.stdout, "the crashed cell's last lines"
    assert "1 of 2 cells crashed" in first.stdout.splitlines()[-1]

    (result_file,) = out.glob("cells/*/result.json")
    result, written = json.loads(result_file.read_text()), result_file.stat().st_mtime_ns
    assert [image["name"] for image in result["images"]] == ["r_0", "r_12", "r_24"] and result["resolution"] == [40, 40]
    assert result["training_views"] > 1 and "degrees_to_nearest_photo" not in result["metrics"]
    assert all(0 < image["degrees_to_nearest_photo"] < 90 for image in result["images"])
    assert result["training"]["steps"] == 8 and result["training"]["seconds"] > 0
    assert result["training"]["peak_memory_mib"] > 100
    assert [step for step, _ in result["curves"]["unseen views"]] == [4]
    report = (out / "report.md").read_text()
    assert f"| plain | 1 of 1 | {result['metrics']['nerfstudio/psnr']:.2f} |" in report
    assert "| broken | 0 of 1 |" in report and "(plots/contact_sheet.png)" in report.split("##")[0]
    assert str(tmp_path) not in report

    alone = experiment_file(tmp_path, methods=[PLAIN])
    second = in_this_process("dietnerf-bench", "run", alone, "--out", out, cwd=tmp_path)
    assert "Cells: 1 in total, 1 already finished, 0 to run." in second.stdout
    assert result_file.stat().st_mtime_ns == written

    config = result_file.relative_to(out).with_name("dietnerf-tiny") / "run" / "config.yml"
    saved = yaml.load((out / config).read_text(), Loader=yaml.Loader)
    assert type(saved) is SafeTrainerConfig and saved._target is SafeTrainer, "every ns-* command can read the run"
    monkeypatch.chdir(out)
    ComputePSNR(load_config=config, output_path=tmp_path / "eval.json").main()
    evaluated = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert result["metrics"]["nerfstudio/psnr"] == evaluated["psnr"]
    assert result["metrics"]["nerfstudio/ssim"] == evaluated["ssim"]


def interrupted(*_):
    raise KeyboardInterrupt
    yield


def interrupted_at_once(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "place, interruption",
    [
        ("dietnerf_ns.bench.cells.plan_cells", interrupted_at_once),
        ("dietnerf_ns.bench.runner.LocalEngine.run", interrupted),
    ],
    ids=["before the cells", "in the cells"],
)
def test_ctrl_c_ends_with_one_line(tmp_path, monkeypatch, capsys, place, interruption):
    monkeypatch.setattr(place, interruption)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as exit_:
        Run(experiment_file(tmp_path, methods=[PLAIN]), out=out).main()
    assert exit_.value.code == 130
    line = f"Interrupted: finished cells are kept, of which {out} has 0. Run the same command for the rest."
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_ctrl_c_in_a_report_ends_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dietnerf_ns.bench.report.write_report", interrupted_at_once)
    with pytest.raises(SystemExit) as exit_:
        Report((tmp_path,)).main()
    assert exit_.value.code == 130
    assert capsys.readouterr().err.startswith("Interrupted: the cells' results are kept.")


def test_a_file_that_cannot_be_written_ends_with_one_line(tmp_path):
    out = tmp_path / "out"
    (out / "experiment.json").mkdir(parents=True)
    with pytest.raises(UserError, match=f"IsADirectoryError: .*experiment.json'?: finished cells .* {out} has 0. Run"):
        Run(experiment_file(tmp_path, methods=[PLAIN]), out=out).main()
    results = write_fake_results(tmp_path / "results", {("lego", "v", "plain", 0): 20.0})
    (results / "results.csv").mkdir()
    with pytest.raises(UserError, match="IsADirectoryError: .*results.csv'?: the cells' results are kept"):
        Report((results,)).main()


@pytest.fixture
def signals():
    """`main` sets handlers, which other tests must not inherit."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run_here(tmp_path, monkeypatch, command, *labels):
    """`dietnerf-bench run` of a fake cell for each label, all at once."""
    experiment = experiment_file(tmp_path, methods=[PLAIN | {"label": label} for label in labels])
    monkeypatch.setattr(Run, "_engine", lambda self: LocalEngine(len(labels), command))
    monkeypatch.setattr(sys, "argv", ["dietnerf-bench", "run", str(experiment), "--out", str(tmp_path / "out")])
    main()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signals_end_the_cells_and_the_command(tmp_path, monkeypatch, fake_cell_command, signals, capsys, number):
    """A closed terminal and its shell send several."""

    def end():
        wait_until(lambda: started(tmp_path / "out"), "the fake cell has started", seconds=60)
        for each in (number, signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), each)
            time.sleep(0.05)

    thread, before = threading.Thread(target=end), set(psutil.Process().children())
    thread.start()
    with pytest.raises(SystemExit) as exit_:
        run_here(tmp_path, monkeypatch, fake_cell_command, "sleep")
    thread.join()
    assert exit_.value.code == 128 + number
    assert "Interrupted: finished cells are kept" in capsys.readouterr().err.splitlines()[-1]
    assert not set(psutil.Process().children()) - before, "no cell is left"


def test_a_second_ctrl_c_leaves_no_cell_behind(tmp_path, monkeypatch, fake_cell_command, signals):
    """Cells have sessions of their own, and take their time to save."""

    def end():
        wait_until(lambda: len(started(tmp_path / "out")) == 3, "the fake cells have started", seconds=60)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    thread, before = threading.Thread(target=end), set(psutil.Process().children())
    thread.start()
    with pytest.raises(SystemExit):
        run_here(tmp_path, monkeypatch, fake_cell_command, "slow sleep", "slow sleep 2", "slow sleep 3")
    thread.join()
    assert not set(psutil.Process().children()) - before, "no cell is left"


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, monkeypatch, fake_cell_command, signals):
    """As under nohup."""
    handlers = {}

    def note_handlers(*_, **__):
        handlers.update({number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)})
        raise KeyboardInterrupt

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr("dietnerf_ns.bench.cells.plan_cells", note_handlers)
    with pytest.raises(SystemExit):
        run_here(tmp_path, monkeypatch, fake_cell_command, "any")
    assert handlers[signal.SIGHUP] == signal.SIG_IGN
    assert handlers[signal.SIGTERM] not in (signal.SIG_DFL, signal.SIG_IGN)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    run, calls = Run(experiment_file(tmp_path, methods=[PLAIN]), out=tmp_path / "out"), []

    def start_again(self, cells, out):
        calls.append(cells)
        if len(calls) == 1:
            with pytest.raises(UserError, match="--out .*out: another dietnerf-bench run is at work there"):
                run.main()
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(LocalEngine, "run", start_again)
    for _ in range(2):
        with pytest.raises(SystemExit, match="130"):
            run.main()
    assert len(calls) == 2, "the folder is free again"


@pytest.mark.parametrize(
    "arguments, content, words",
    [
        ({}, {"scenes": ["lego"]}, "'lego' needs --data"),
        ({"jobs": 0}, {}, "--jobs 0: must be at least 1"),
        ({"engine": "ray"}, {}, "pip install"),
    ],
)
def test_wrong_input_is_rejected_before_anything_runs(tmp_path, monkeypatch, arguments, content, words):
    monkeypatch.setitem(sys.modules, "ray", None)
    experiment = experiment_file(tmp_path, **({"methods": [PLAIN]} | content))
    with pytest.raises(UserError, match=words):
        Run(experiment, out=tmp_path / "out", **arguments).main()
    assert not list(tmp_path.glob("out/[!.]*"))


def test_help_explains_every_setting(tmp_path):
    text = in_this_process("dietnerf-bench", "run", "--help", cwd=tmp_path).stdout
    for words in ("--jobs", "run at the same time", "--ray-address", "result.json when finished", "--data"):
        assert words in text


def test_the_clock_keeps_nerfstudios_own_time_of_the_training_loop(monkeypatch):
    clock = TrainingClock()
    monkeypatch.setattr(writer, "EVENT_WRITERS", [clock])
    writer.put_time(writer.EventName.TOTAL_TRAIN_TIME, 12.5, step=8, avg_over_steps=False)
    writer.put_scalar("Train Loss", torch.tensor(0.1), step=8)
    writer.put_dict("Train Loss Dict", {"rgb_loss": torch.tensor(0.1)}, step=8)
    writer.put_image("img", torch.zeros(2, 2, 3), step=8)
    writer.put_config("config", {"seed": 0}, step=8)
    writer.write_out_storage()
    assert clock.seconds == 12.5


def test_results_go_into_a_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="--out .*out: cannot be written: File exists"):
        Run(experiment_file(tmp_path, methods=[PLAIN]), out=tmp_path / "out").main()


def test_a_folder_without_write_permission_is_one_line_of_error(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UserError, match="--out .*out: cannot be written: permission denied"):
        Run(experiment_file(tmp_path, methods=[PLAIN]), out=tmp_path / "out").main()
