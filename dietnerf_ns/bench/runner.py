"""Runs the cells that have no result yet, each in its own process, some at once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from dietnerf_ns.bench.cells import CELLS, RESULT, SPECIFICATION, Cell

CELL_COMMAND = (sys.executable, "-m", "dietnerf_ns.bench.train_cell")
"""A cell's process; the cell's folder is added, and it runs in the results folder."""
LOG = "log.txt"
LOG_LINES_SHOWN = 12
SECONDS_TO_END = 5


class Engine(Protocol):
    """Something that can run cells."""

    def run(self, cells: list[Cell], out: Path) -> Iterator[Cell]:
        """Run the cells and give back each when its process has ended, well or not.

        Closing the iterator ends the processes that are still running.
        """


def run_missing(cells: list[Cell], out: Path, engine: Engine) -> list[Cell]:
    """Run every cell without a result; a crashed cell is reported with the end of its log, and the rest goes on.

    Returns:
        The crashed cells.
    """
    missing = [cell for cell in cells if not is_finished(cell, out)]
    done = len(cells) - len(missing)
    print(f"{len(cells)} cells: {done} finished before, {len(missing)} to run.")
    crashed = []
    # Without smoothing the time left is that of the average cell, however long ago one ended.
    bar = tqdm(total=len(cells), initial=done, unit="cell", smoothing=0)
    with bar, contextlib.closing(engine.run(missing, out)) as ended:
        for cell in ended:
            if not is_finished(cell, out):
                crashed.append(cell)
                bar.write(f"{cell.id} crashed:\n{end_of_log(cell, out)}", file=sys.stderr)
            bar.update()
    return crashed


def is_finished(cell: Cell, out: Path) -> bool:
    """Whether the cell has a result; such a cell is never run again."""
    return (out / CELLS / cell.id / RESULT).is_file()


def end_of_log(cell: Cell, out: Path) -> str:
    """The last lines that the cell's process wrote."""
    log = out / CELLS / cell.id / LOG
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else ["(it wrote nothing)"]
    return "\n".join(f"    {line}" for line in lines[-LOG_LINES_SHOWN:])


@dataclass
class LocalEngine:
    """Cells on this machine."""

    jobs: int
    """So many at once."""
    command: tuple[str, ...] = CELL_COMMAND

    def run(self, cells: list[Cell], out: Path) -> Iterator[Cell]:
        """See `Engine.run`."""
        waiting, free = list(reversed(cells)), list(range(self.jobs))
        running: dict[int, tuple[Cell, subprocess.Popen]] = {}
        try:
            while waiting or running:
                while waiting and free:
                    slot, cell = free.pop(0), waiting.pop()
                    running[slot] = cell, start_cell(cell, out, self.command, cell_environment(slot, self.jobs))
                time.sleep(0.1)
                for slot, (cell, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[slot]
                        free.append(slot)
                        yield cell
        finally:
            for _, process in running.values():
                end_process(process)


def cell_environment(slot: int, jobs: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment of the cell in one of `jobs` places: its share of the threads, unless the user set it; its GPU."""
    shared = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} | dict(environment)
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
