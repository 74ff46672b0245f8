"""Cells on several machines, by Ray; they share the results folder and have this package installed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dietnerf_ns.bench.cell import CELLS, Cell
from dietnerf_ns.bench.processes import CELL_COMMAND, LOG, SECONDS_TO_END, run_to_its_end
from dietnerf_ns.utils.errors import UserError


@dataclass
class RayEngine:
    """Cells on the machines of a Ray cluster.

    Raises:
        UserError: ray is not installed, or there is no cluster at the address.
    """

    jobs: int
    """So many at once on each machine; they share its processors and GPUs."""
    address: str | None = None
    """Of the cluster; when not given that of RAY_ADDRESS, else this machine becomes one."""
    command: tuple[str, ...] = CELL_COMMAND

    def __post_init__(self):
        self._ray = import_ray()
        if self.address is not None:
            check_address(self.address)

    def run(self, cells: list[Cell], out: Path) -> Iterator[Cell]:
        """See `Engine.run`."""
        ray = self._ray
        ray.init(address=self.address, log_to_driver=False, logging_level="warning", ignore_reinit_error=True)
        task = ray.remote(run_to_its_end).options(max_retries=0, **share_of(ray.nodes(), self.jobs))
        running = {task.remote(cell, out.resolve(), self.command): cell for cell in cells}
        try:
            while running:
                for reference in ray.wait(list(running))[0]:
                    cell = running.pop(reference)
                    try:
                        ray.get(reference)
                    except ray.exceptions.RayError as error:  # a machine went away
                        note_in_log(cell, out, str(error))
                    yield cell
        finally:
            for reference in running:
                ray.cancel(reference)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=2 * SECONDS_TO_END)
            ray.shutdown()


def share_of(nodes: list[dict], jobs: int) -> dict[str, float]:
    """What one cell asks for, so that the smallest machine that can run cells runs `jobs` at once.

    If any machine has a GPU, cells run on those that have one, and only there.

    Args:
        nodes: as `ray.nodes()` describes them, machines that went away among them.
        jobs: cells at once on a machine.

    Raises:
        UserError: no machine runs anything.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if not machines:
        raise UserError("--engine ray: no machine of the cluster has processors for cells; add one with `ray start`.")
    machines = [machine for machine in machines if machine.get("GPU", 0) > 0] or machines
    cpus, gpus = (min(machine.get(kind, 0) for machine in machines) for kind in ("CPU", "GPU"))
    return {"num_cpus": max(1, int(cpus // jobs)), "num_gpus": min(1, gpus / jobs)}


def import_ray():
    """The package ray, which is an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError('--engine ray needs ray, which is not installed: pip install "dietnerf-ns[ray]".') from error
    return ray


def check_address(address: str) -> None:
    """Find out in seconds what Ray itself takes minutes for.

    Raises:
        UserError: nothing answers at the address.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--ray-address {address}: nothing answers there ({error}); give HOST:PORT as `ray start --head` prints it."
        ) from error


def note_in_log(cell: Cell, out: Path, words: str) -> None:
    """Add why the cell ended to its log."""
    log = out / CELLS / cell.id / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"{words}\n")
