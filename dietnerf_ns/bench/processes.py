"""A cell's process: its environment, its start, its end. Imports nothing heavy, as `dietnerf_ns.bench.cell`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from dietnerf_ns.bench.cell import CELLS, SPECIFICATION, Cell

CELL_COMMAND = (sys.executable, "-m", "dietnerf_ns.bench.train_cell")
"""A cell's process; the cell's folder is added, and it runs in the results folder."""
LOG = "log.txt"
SECONDS_TO_END = 5


def run_to_its_end(cell: Cell, out: Path, command: tuple[str, ...]) -> None:
    """Run a cell's process; end it when this is interrupted."""
    process = start_cell(cell, out, command, os.environ)
    try:
        while process.poll() is None:  # a cancelled Ray task notices it between two statements only
            time.sleep(0.2)
    finally:
        end_process(process)


def cell_environment(slot: int, jobs: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment of the cell in one of `jobs` places: its share of the threads, unless the user set it; its GPU.

    Threads that wait by spinning, as they do by default, would keep those of other cells from their work.
    """
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    shared = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"} | dict(environment)
    import torch

    every_gpu = ",".join(map(str, range(torch.cuda.device_count())))
    gpus = shared.get("CUDA_VISIBLE_DEVICES", every_gpu).split(",")
    return shared | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if len(gpus) > 1 else {})


def start_cell(cell: Cell, out: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a cell's process in a clean folder, in a group of its own, so that Ctrl-C reaches us alone."""
    folder = out / CELLS / cell.id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / SPECIFICATION).write_text(json.dumps(asdict(cell), indent=1) + "\n")
    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(
            [*command, str(Path(CELLS, cell.id))],
            cwd=out,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_process(process: subprocess.Popen) -> None:
    """End a cell's process and its children; without mercy if it does not end in a few seconds."""
    for force in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, force)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
            return
