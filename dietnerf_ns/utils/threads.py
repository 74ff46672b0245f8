"""Work on a CPU in parts at the same time, which loses less than many threads inside every operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

MOST_PARTS_AT_ONCE = 4
"""A limit of memory; and Python itself runs one thread at a time. Measured with two threads only."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_parts(function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """The function of each part, several at the same time, which share the threads that torch is set to use.

    An error or an interrupt ends the work after the parts that have begun.

    Args:
        function: may be called by several threads at once, which do not inherit the mode of gradients.
        parts: of the work, in any number.

    Returns:
        The results in the order of the parts.
    """
    threads = torch.get_num_threads()
    at_once = min(threads, len(parts), MOST_PARTS_AT_ONCE)
    if at_once <= 1:
        return [function(part) for part in parts]
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,))
    try:
        return list(pool.map(function, parts))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # threads that start later take over the last number that was set
