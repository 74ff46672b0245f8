"""Runs the installed commands as a user types them."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import io
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.scripts import train
from nerfstudio.utils import profiler, writer

WIDTH = {"COLUMNS": "400"}
"""Messages of nerfstudio and tyro stay on one line."""

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def ns(
    command: str, *arguments: object, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess:
    """Run a command of this environment as a program of its own; its output has stderr merged in.

    Starting one takes seconds: tests that do so are marked `slow`.
    """
    executable = Path(sys.executable).with_name(command)
    result = subprocess.run(
        [str(executable), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | WIDTH | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    return checked(result) if check else result


def in_this_process(
    command: str, *arguments: object, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess:
    """Run a command as `ns` does, without starting a program: its entry point is called with these arguments.

    What nerfstudio keeps in its modules, handlers of signals and the state of the random numbers are as before
    afterwards. Variables of the
    environment count only if they are read when the command runs, not when a module is imported. A training differs
    from that of `ns` by its random numbers, because the type checks (`shape_checks`) draw from Python's generator.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    states = random.getstate(), np.random.get_state()
    try:
        return _called_here(command, *arguments, cwd=cwd, check=check, **environment)
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that Python did not install
                signal.signal(number, handler)
        random.setstate(states[0])
        np.random.set_state(states[1])


def _called_here(
    command: str, *arguments: object, cwd: Path, check: bool, **environment: str
) -> subprocess.CompletedProcess:
    (entry_point, *_) = importlib.metadata.entry_points(group="console_scripts", name=command)
    main, output, status = entry_point.load(), io.StringIO(), None
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd), torch.random.fork_rng():
        patch.setattr(sys, "argv", [command, *map(str, arguments)])
        for name, value in (WIDTH | environment).items():
            patch.setenv(name, value)
        patch.setattr(writer, "EVENT_WRITERS", [])
        patch.setattr(writer, "EVENT_STORAGE", [])
        patch.setattr(writer, "GLOBAL_BUFFER", {})
        patch.setattr(profiler, "PROFILER", [])
        train_main = train.main  # which writes into the registered method's own configuration
        patch.setattr(train, "main", lambda config: train_main(copy.deepcopy(config)))
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                main()
            except SystemExit as end:
                status = end.code
            for event_writer in writer.EVENT_WRITERS:  # which write to relative paths in threads of their own
                if isinstance(event_writer, writer.TensorboardWriter):
                    event_writer.tb_writer.close()
    if isinstance(status, str):
        print(status, file=output)
    result = subprocess.CompletedProcess([command, *arguments], int(bool(status)), output.getvalue())
    return checked(result) if check else result


def checked(result: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    assert result.returncode == 0, f"{result.args} ended with {result.returncode}:\n{result.stdout[-4000:]}"
    return result


def checkpoint(run: Path) -> dict:
    """The only checkpoint of a run."""
    (file,) = (run / "nerfstudio_models").glob("*.ckpt")
    return torch.load(file)
