"""Runs the cells that have no result yet, each in its own process, some at once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from dietnerf_ns.bench.cell import CELLS, RESULT, Cell
from dietnerf_ns.bench.processes import CELL_COMMAND, LOG, cell_environment, end_process, start_cell

LOG_LINES_SHOWN = 12


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
    print(f"Cells: {len(cells)}, {done} finished before, {len(missing)} to run.")
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
