"""Signals, and the command that is offered to go on."""

import os
import signal
from pathlib import Path

import pytest
from nerfstudio.utils import comms

from dietnerf_ns.training.interruption import Interruption, command_to_resume


@pytest.fixture
def interruption():
    """In a process whose signals have their usual handlers."""
    usual = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    stops = []
    interruption = Interruption(lambda: stops.append(True))
    interruption.stops = stops
    yield interruption
    for number, handler in usual.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_before_the_first_step_a_signal_ends_the_program(interruption, number, status, capfd):
    with pytest.raises(SystemExit) as end, interruption:
        os.kill(os.getpid(), number)
    assert end.value.code == status and not interruption.stops
    assert "nothing to save" in capfd.readouterr().err


def test_in_training_the_first_signal_is_noted_and_the_second_ends_at_once(interruption, monkeypatch, capfd):
    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)
    with interruption:
        interruption.phase = "training"
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.number == signal.SIGTERM and interruption.stops == [True] and not exits
        os.kill(os.getpid(), signal.SIGINT)
        assert exits == [130]
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert "a checkpoint is saved" in capfd.readouterr().err


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_launcher_of_several_processes_adds_a_sigterm(interruption, monkeypatch, capfd, first):
    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(comms, "get_world_size", lambda: 2)
    with interruption:
        interruption.phase = "training"
        interruption.number = signal.SIGINT  # which another process got and told of
        for number in (first, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert not exits and interruption.number == first
        assert capfd.readouterr().err.count("Interrupted") == 1
        os.kill(os.getpid(), signal.SIGINT)
        assert exits == [130]


@pytest.mark.parametrize("unsaved, status", [(0, 0), (1, 1)])
def test_after_training_ctrl_c_leaves_the_viewer(interruption, unsaved, status):
    with pytest.raises(SystemExit) as end, interruption:
        interruption.phase, interruption.status_when_done = "done", unsaved
        os.kill(os.getpid(), signal.SIGINT)
    assert end.value.code == status


def test_a_signal_that_is_ignored_stays_ignored(interruption):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruption:
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.number is None


def test_the_command_to_go_on_has_the_settings_of_this_one():
    def command(*arguments, **which):
        return command_to_resume(arguments, method="dietnerf-tiny", checkpoints=Path("out/a b"), steps_left=7, **which)

    given = ["/bin/ns-train", "dietnerf-tiny", "--vis", "tensorboard", "--max_num_iterations=9", "--load-dir", "old"]
    assert command(*given, "--machine.seed", "3", "blender-data", "--data", "x y") == (
        "ns-train dietnerf-tiny --load-dir 'out/a b' --max-num-iterations 7 --vis tensorboard --machine.seed 3 "
        "blender-data --data 'x y'"
    )
    assert command(*given, "--load-config", "x.yml") == (
        "ns-train dietnerf-tiny --load-dir 'out/a b' --max-num-iterations 7 and the settings of this run"
    ), "the file would replace all flags"
    assert "--max-num-iterations 7 --load-step 2 --vis" in command(*given, "--load-step", "1", load_step=2)
    assert command("python").endswith("--max-num-iterations 7 and the settings of this run")
