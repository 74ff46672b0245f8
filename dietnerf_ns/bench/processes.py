"""The process of a cell: its environment, its start and its end. Imports nothing heavy, as `dietnerf_ns.bench.cell`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from dietnerf_ns.bench.cell import SPECIFICATION, Cell
from dietnerf_ns.utils.errors import UserError

CELL_COMMAND = (sys.executable, "-m", "dietnerf_ns.bench.train_cell")
"""Command of a cell's process. The cell's folder is added as its argument, and it runs in the results folder."""
LOG = "log.txt"
SECONDS_TO_END = 5
STATUS = Path("/proc/self/status")
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""In bytes."""


def peak_memory_mib() -> float:
    """Peak of this process's resident set in MiB.

    On Linux it is that of /proc: the one of `getrusage` starts with the peak of the program that started this one.
    """
    if STATUS.exists():
        return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT / 2**20


def usable_cpus() -> int:
    """Number of processors that this process may use: those of a cluster's job or a container, not all that there are.

    Where the system does not say, it is the number of all.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run_cell(cell: Cell, out: Path, command: tuple[str, ...]) -> None:
    """Run a cell's process until it ends, and end it when this function is interrupted."""
    process = start_cell(cell, out, command, os.environ)
    try:
        while process.poll() is None:  # Ray can cancel a task only between two Python statements
            time.sleep(0.2)
    finally:
        end_processes([process])


def cell_environment(slot: int, jobs: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables of a cell's process: its share of the CPU threads, unless the user set it, and its GPU.

    Threads that wait by spinning, as they do by default, would take CPU time from other cells.

    Args:
        slot: which of the parallel jobs the cell is, from 0 to `jobs` - 1.
        jobs: number of cells that run at the same time on this machine.
        environment: the variables to start from; the values in it take precedence.
    """
    threads = str(max(1, usable_cpus() // jobs))
    shared = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"} | dict(environment)
    import torch

    every_gpu = ",".join(map(str, range(torch.cuda.device_count())))
    gpus = shared.get("CUDA_VISIBLE_DEVICES", every_gpu).split(",")
    return shared | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if len(gpus) > 1 else {})


def start_cell(cell: Cell, out: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a cell's process in a clean folder. It has a process group of its own, so that Ctrl-C does not reach it.

    Raises:
        UserError: the cell's process of a run that was killed is still at work there.
    """
    folder = out / cell.folder
    _check_not_at_work(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / SPECIFICATION).write_text(json.dumps(asdict(cell), indent=1) + "\n")
    with (folder / LOG).open("wb") as log:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(log, fcntl.LOCK_EX)  # the process inherits the lock and holds it until it ends
        return subprocess.Popen(
            [*command, str(cell.folder)],
            cwd=out,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _check_not_at_work(folder: Path) -> None:
    try:
        with (folder / LOG).open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{folder}: the cell is still training there, although the run that started it was killed; end its process "
            "or wait for it."
        ) from error
    except OSError:
        pass  # no log yet, or a file system without locks


def end_processes(processes: Iterable[subprocess.Popen], seconds: float = SECONDS_TO_END) -> None:
    """End processes with their children: SIGTERM to all first, later SIGKILL to those that are still running.

    Args:
        processes: each with a process group of its own.
        seconds: between the two. For children of a process that has already ended, SIGKILL follows at once.
    """
    ended = running = list(processes)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal_number)
        deadline = time.monotonic() + seconds
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        running = [process for process in running if process.poll() is None]
    for process in ended:  # children that did not end with it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
