"""Runs the cells that have no result yet, each in its own process, several at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from tqdm import tqdm

from dietnerf_ns.bench.cell import RESULT, Cell
from dietnerf_ns.bench.processes import CELL_COMMAND, LOG, cell_environment, end_processes, start_cell
from dietnerf_ns.utils.errors import UserError

LOCK = ".lock"
LOG_LINES_SHOWN = 12


@runtime_checkable
class Engine(Protocol):
    """Something that can run cells."""

    def run(self, cells: list[Cell], out: Path) -> Generator[Cell, None, None]:
        """Run the cells and yield each one when its process has ended, whether it succeeded or not.

        Closing the generator ends the processes that are still running.
        """
        ...


@contextlib.contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Keep other runs out of a results folder, also those of other machines if its file system has locks.

    Raises:
        UserError: another run is at work there.
    """
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"--out {out}: another dietnerf-bench run is at work there; wait or end it.") from error
        except OSError:
            pass  # a file system without locks
        yield


def run_missing(cells: list[Cell], out: Path, engine: Engine) -> list[Cell]:
    """Run every cell that has no result. A crashed cell is reported with the end of its log; the others continue.

    Returns:
        The crashed cells.
    """
    missing = [cell for cell in cells if not is_finished(cell, out)]
    done = len(cells) - len(missing)
    print(f"Cells: {len(cells)} in total, {done} already finished, {len(missing)} to run.")
    crashed = []
    # Without smoothing the remaining time is estimated from the mean over all cells, not from the last ones.
    bar = tqdm(total=len(cells), initial=done, unit="cell", smoothing=0)
    with bar, contextlib.closing(engine.run(missing, out)) as ended:
        for cell in ended:
            if not is_finished(cell, out):
                crashed.append(cell)
                bar.write(f"{cell.id} crashed:\n{end_of_log(cell, out)}", file=sys.stderr)
            bar.update()
    return crashed


def is_finished(cell: Cell, out: Path) -> bool:
    """Whether the cell has a result. Such a cell is never run again."""
    return (out / cell.folder / RESULT).is_file()


def end_of_log(cell: Cell, out: Path) -> str:
    """The last lines of the cell's log, indented."""
    log = out / cell.folder / LOG
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else ["(the log is missing)"]
    return "\n".join(f"    {line}" for line in lines[-LOG_LINES_SHOWN:])


@dataclass
class LocalEngine:
    """Runs cells on this machine."""

    jobs: int
    """Number of cells that run at the same time."""
    command: tuple[str, ...] = CELL_COMMAND

    def run(self, cells: list[Cell], out: Path) -> Generator[Cell, None, None]:
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
                        end_processes([process])  # children that a killed process left behind
                        del running[slot]
                        free.append(slot)
                        yield cell
        finally:
            end_processes(process for _, process in running.values())
