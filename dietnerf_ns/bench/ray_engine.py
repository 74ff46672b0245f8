"""Runs cells on several machines with Ray. They share the results folder, and all have this package installed."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from dietnerf_ns.bench.cell import Cell
from dietnerf_ns.bench.processes import CELL_COMMAND, LOG, SECONDS_TO_END, run_cell
from dietnerf_ns.utils.ending import signals_interrupt
from dietnerf_ns.utils.errors import UserError


@dataclass
class RayEngine:
    """Runs cells on the machines of a Ray cluster.

    Raises:
        UserError: ray is not installed, or there is no cluster at the address.
    """

    jobs: int
    """Number of cells that run at the same time on each machine. They share its processors and GPUs."""
    address: str | None = None
    """Address of the cluster's head, as HOST:PORT. Default: that of RAY_ADDRESS; if this is not set either, this
    machine becomes a cluster of its own, also where another one runs on it."""
    command: tuple[str, ...] = CELL_COMMAND

    def __post_init__(self):
        self._ray = import_ray()
        variable = os.environ.get("RAY_ADDRESS", "auto")
        if self.address is not None:
            check_address(self.address, "--ray-address")
        elif ":" in variable:  # otherwise a word such as `auto`, which Ray resolves
            check_address(variable, "RAY_ADDRESS")

    def run(self, cells: list[Cell], out: Path) -> Generator[Cell, None, None]:
        """See `Engine.run`."""
        ray = self._ray
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        handler = signal.getsignal(signal.SIGTERM)  # Ray's own ends the program without a word
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, ignore_reinit_error=True)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        task = ray.remote(run_cell).options(max_retries=0, **share_of(ray.nodes(), self.jobs))
        running = {task.remote(cell, out.resolve(), self.command): cell for cell in cells}
        try:
            with signals_interrupt():
                while running:
                    for reference in ray.wait(list(running))[0]:
                        cell = running.pop(reference)
                        try:
                            ray.get(reference)
                        except ray.exceptions.RayError as error:  # a machine went away
                            append_to_log(cell, out, str(error))
                        yield cell
        finally:
            for reference in running:
                ray.cancel(reference)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=2 * SECONDS_TO_END)
            ray.shutdown()


def share_of(nodes: list[dict], jobs: int) -> dict[str, float]:
    """Resources that one cell requests, so that the smallest machine runs `jobs` cells at the same time.

    If any machine has a GPU, cells run only on machines that have one.

    Args:
        nodes: the machines as `ray.nodes()` describes them, including those that went away.
        jobs: cells at the same time on one machine.

    Returns:
        `num_cpus` and `num_gpus` of Ray's task options.

    Raises:
        UserError: no machine can run a cell.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if not machines:
        raise UserError("--engine ray: no machine of the cluster has CPUs for cells; add one with `ray start`.")
    machines = [machine for machine in machines if machine.get("GPU", 0) > 0] or machines
    cpus, gpus = (min(machine.get(kind, 0) for machine in machines) for kind in ("CPU", "GPU"))
    # Ray places a fraction on a single GPU: with two of them, three cells at once are two on one and one on the other.
    cells_on_a_gpu = math.ceil(jobs / gpus) if gpus else 1
    return {"num_cpus": max(1, int(cpus // jobs)), "num_gpus": 1 / cells_on_a_gpu if gpus else 0}


def import_ray():
    """Import ray, which is an optional dependency.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UserError('--engine ray needs ray, which is not installed: pip install "dietnerf-ns[ray]".') from error
    return ray


def check_address(address: str, source: str) -> None:
    """Check in seconds that something listens at the address; Ray itself needs minutes to find that out.

    Args:
        address: HOST:PORT, also as `ray://HOST:PORT`.
        source: the option or variable that it is from.

    Raises:
        UserError: nothing answers there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source} {address}: nothing answers there ({error}); give HOST:PORT as `ray start --head` prints it."
        ) from error


def append_to_log(cell: Cell, out: Path, reason: str) -> None:
    """Add the reason why a cell ended to its log."""
    log = out / cell.folder / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"{reason}\n")
