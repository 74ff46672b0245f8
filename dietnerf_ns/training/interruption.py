"""Ctrl-C and SIGTERM: finish the step, keep what was trained, and say how to go on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal

from nerfstudio.utils import comms

from dietnerf_ns.utils.distributed import is_one_of_several

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPLACED_WHEN_RESUMING = ("--load-dir", "--load-step", "--load-checkpoint", "--max-num-iterations")


def status_of(number: int) -> int:
    """The exit status of a program that a signal ended."""
    return 128 + number


class Interruption:
    """A context in which a signal is noted, so that training ends after its step. A second one ends all at once.

    Only the main thread gets signals; in another thread nothing is changed, and neither is a signal that the program
    was started without, as in `nohup`.

    Args:
        stop: makes training end after its step.
    """

    def __init__(self, stop: Callable[[], None]):
        self._stop = stop
        self.number: int | None = None
        """The signal that ends training; of several processes, perhaps another one's."""
        self._arrived: int | None = None
        self.phase: Literal["starting", "training", "done"] = "starting"
        """Until the first step there is nothing to save, and after the last save nothing is lost: then a signal ends
        the program."""
        self.status_when_done = 0
        """Exit status of Ctrl-C after the last save."""

    def __enter__(self) -> Interruption:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._arrived is not None and number == signal.SIGTERM and is_one_of_several():
            return  # the launcher answers a signal, which its processes may have got as well, with SIGTERM to each
        if self._arrived is not None:
            os._exit(status_of(number))
        self.number = self._arrived = number
        if self.phase == "starting":
            _say("Interrupted before the first step: there is nothing to save.")
            raise SystemExit(status_of(number))
        if self.phase == "done":  # nerfstudio's viewer waits for Ctrl-C
            raise SystemExit(self.status_when_done if number == signal.SIGINT else status_of(number))
        self._stop()
        _say("Interrupted: the step is finished and a checkpoint is saved. A second signal ends at once.")


def _say(message: str) -> None:
    """Write directly: a signal may arrive inside `print`, which cannot be entered twice."""
    if not comms.is_main_process():
        return
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{message}\n".encode())


def command_to_resume(
    arguments: Sequence[str], *, method: str, checkpoints: Path, load_step: int | None = None, steps_left: int
) -> str:
    """The command that trains the rest of an interrupted run.

    Args:
        arguments: of the program, its name first.
        method: name of the method.
        checkpoints: folder to load from.
        load_step: of the checkpoint to load, if it is not the newest one in the folder.
        steps_left: number of steps that are left.
    """
    program, *given = arguments
    resuming = ["--load-dir", str(checkpoints), "--max-num-iterations", str(steps_left)]
    if load_step is not None:
        resuming += ["--load-step", str(load_step)]
    reads_file = any(argument.partition("=")[0].replace("_", "-") == "--load-config" for argument in given)
    # After --load-config nerfstudio ignores all other flags.
    if not Path(program).name.startswith("ns-train") or method not in given or reads_file:
        return shlex.join(["ns-train", method, *resuming]) + " and the settings of this run"
    position = given.index(method) + 1
    return shlex.join(["ns-train", *given[:position], *resuming, *_without(given[position:], REPLACED_WHEN_RESUMING)])


def _without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    kept, value_follows = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if value_follows:
            value_follows = False
        elif name.replace("_", "-") in names:
            value_follows = not equals
        else:
            kept.append(argument)
    return kept
