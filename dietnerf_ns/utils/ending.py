"""How a command ends: at a signal or an error of the system with one line, when what is unfinished is removed."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from dietnerf_ns.utils.errors import system_errors_in_one_line

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, and how batch systems and closed terminals end a program."""


@contextlib.contextmanager
def ends_in_one_line(nothing_kept: str = "Nothing was written.") -> Iterator[None]:
    """Around a command: one line for a signal, and for what the system refuses.

    Args:
        nothing_kept: what is said at a signal, unless the interruption has a note (see `noting_output`).

    Raises:
        UserError: in place of an `OSError`.
        SystemExit: in place of a signal, with 128 and its number as the status.
    """
    print_every_name()
    with system_errors_in_one_line(), signals_interrupt():
        try:
            yield
        except KeyboardInterrupt as interrupt:
            (number,) = interrupt.args or (signal.SIGINT,)
            print(" ".join(["Interrupted.", *getattr(interrupt, "__notes__", [nothing_kept])]).strip(), file=sys.stderr)
            sys.exit(128 + number)


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Inside, a signal is a `KeyboardInterrupt` with its number.

    Later ones, of a closed terminal or an impatient user, are ignored, so that they do not stop what the first one
    started: unfinished files are removed. So is a signal that the program was started without, as with `nohup`.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None):
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for later in SIGNALS:
        signal.signal(later, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def _end_children_at_once() -> None:
    """In a child process that loads data: its parent ends it with a signal, at which it has nothing to say."""
    for number in SIGNALS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_end_children_at_once)


@contextlib.contextmanager
def noting_output(output: Path) -> Iterator[None]:
    """Note in an interruption inside that the output is written, if it is there and is not the one from before."""
    before = _identity(output)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if _identity(output) not in (before, None):
            interrupt.add_note(f"{output} was already written.")
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def print_every_name() -> None:
    """Print names of files that are not UTF-8 with escapes, instead of failing after the work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
