"""Time and memory, each measured in the best way that the device offers."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from dietnerf_ns.bench.processes import peak_memory_mib
from dietnerf_ns.utils.malloc import return_freed_memory

MIB = 2**20
PAGE_BYTES = 4096
CLEAR_REFS, STATM = (Path("/proc/self", name) for name in ("clear_refs", "statm"))
RESET_PEAK = "5"
"""proc(5): written to clear_refs, it sets the peak resident set to the present one."""


class Stopwatch:
    """Times named sections of code: with CUDA events, which do not make the GPU wait for Python, or with the clock.

    Args:
        device: device that does the work.
    """

    def __init__(self, device: torch.device):
        self.on_cuda = device.type == "cuda"
        self._sections: dict[str, list[tuple]] = defaultdict(list)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the code inside."""
        started = self._now()
        yield
        self._sections[name].append((started, self._now()))

    def _now(self):
        if not self.on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self) -> dict[str, list[float]]:
        """Durations of all sections by name, in the order in which they were timed."""
        if self.on_cuda:
            torch.cuda.synchronize()
        return {name: [self._between(*pair) for pair in pairs] for name, pairs in self._sections.items()}

    def _between(self, start, end) -> float:
        return start.elapsed_time(end) if self.on_cuda else 1000 * (end - start)


def median_and_quartiles(values: Sequence[float]) -> dict[str, float]:
    """`median`, the quartiles `low` and `high`, and the number of values `n`."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high), "n": len(values)}


class PeakMeter:
    """Peak memory of named sections of code: on a CPU the resident set of this process.

    On CUDA the peak of torch's allocator, and what is held outside of it at the end of the section: tinycudann, for
    example, has an allocator of its own, and keeps what it once took. Other programs on the GPU count as well; in
    `above_start` what they hold cancels out as long as it does not change.

    On a CPU freed memory is returned to the system at once from then on. That makes work slow, so no time must be
    measured in the same process.

    Args:
        device: device that does the work.
    """

    def __init__(self, device: torch.device):
        self.on_cuda = device.type == "cuda"
        return_freed_memory()
        self.start = self._in_use()
        """Memory in use before any work, in MiB."""
        self.above_start: dict[str, float] = {}
        """Highest peak of each section above `start`, in MiB."""

    @staticmethod
    def works_on(device: torch.device) -> bool:
        """Whether peaks can be measured: the peak of the resident set can only be reset on Linux."""
        return device.type == "cuda" or CLEAR_REFS.exists()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the peak of the code inside."""
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            return_freed_memory()
            CLEAR_REFS.write_text(RESET_PEAK)
        yield
        self.above_start[name] = max(self._peak() - self.start, self.above_start.get(name, 0.0))

    def _in_use(self) -> float:
        if self.on_cuda:
            return (torch.cuda.memory_allocated() + held_outside_torch()) / MIB
        return int(STATM.read_text().split()[1]) * PAGE_BYTES / MIB

    def _peak(self) -> float:
        if self.on_cuda:
            return (torch.cuda.max_memory_allocated() + held_outside_torch()) / MIB
        return peak_memory_mib()


def held_outside_torch() -> int:
    """Bytes of the GPU that torch's allocator does not hold: other libraries, CUDA itself, and other programs."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()
