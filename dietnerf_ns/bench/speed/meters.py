"""Time and memory, measured as each device does it best."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from dietnerf_ns.utils.malloc import return_freed_memory

MIB = 2**20
PAGE_BYTES = 4096
CLEAR_REFS, STATM, STATUS = (Path("/proc/self", name) for name in ("clear_refs", "statm", "status"))
RESET_PEAK = "5"
"""proc(5): written to clear_refs, sets the peak resident set to the present one."""


class Stopwatch:
    """Times named stretches of work: CUDA events on a GPU, which does not wait for Python, else the clock.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device):
        self.on_cuda = device.type == "cuda"
        self._stretches: dict[str, list[tuple]] = defaultdict(list)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        started = self._now()
        yield
        self._stretches[name].append((started, self._now()))

    def _now(self):
        if not self.on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self) -> dict[str, list[float]]:
        """Every stretch by name, in the order they were timed."""
        if self.on_cuda:
            torch.cuda.synchronize()
        return {name: [self._between(*pair) for pair in pairs] for name, pairs in self._stretches.items()}

    def _between(self, start, end) -> float:
        return start.elapsed_time(end) if self.on_cuda else 1000 * (end - start)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high), "n": len(values)}


class PeakMeter:
    """Peak memory of named stretches of work: torch's counter on CUDA, the resident set on a CPU.

    On a CPU freed memory goes back to the system at once from then on, which makes work slow: measure no time with it.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device):
        self.on_cuda = device.type == "cuda"
        return_freed_memory()
        self.start = self._in_use()
        """In use before any work, in MiB."""
        self.above_start: dict[str, float] = {}
        """The highest peak of each stretch above `start`, in MiB."""

    @staticmethod
    def works_on(device: torch.device) -> bool:
        """Peaks of the resident set can only be reset on Linux."""
        return device.type == "cuda" or CLEAR_REFS.exists()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Note the peak of what is done inside."""
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            return_freed_memory()
            CLEAR_REFS.write_text(RESET_PEAK)
        yield
        self.above_start[name] = max(self._peak() - self.start, self.above_start.get(name, 0.0))

    def _in_use(self) -> float:
        if self.on_cuda:
            return torch.cuda.memory_allocated() / MIB
        return int(STATM.read_text().split()[1]) * PAGE_BYTES / MIB

    def _peak(self) -> float:
        if self.on_cuda:
            return torch.cuda.max_memory_allocated() / MIB
        return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")) / 1024
