"""How glibc's allocator treats large blocks, which are a CPU's tensors."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""malloc.h: free memory above the first goes back to the system; blocks above the second are mapped on their own."""
LARGEST_MMAP_THRESHOLD = 32 * 2**20
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let tensors take the place of freed ones instead of mapping, and clearing, new pages at every step.

    Measured on two CPU cores: a training step of dietnerf-tiny takes a fifth less time.

    Returns:
        Whether the allocator is glibc's, and took the settings.
    """
    return _set(mmap_threshold=LARGEST_MMAP_THRESHOLD, trim_threshold=NEVER)


def return_freed_memory() -> bool:
    """Give tensors freed so far, and from now on each at once, back to the system: the resident set is what is in use.

    Returns:
        Whether the allocator is glibc's, and took the settings.
    """
    taken = _set(mmap_threshold=2**12, trim_threshold=0)
    if taken:
        ctypes.CDLL(None).malloc_trim(0)
    return taken


def _set(*, mmap_threshold: int, trim_threshold: int) -> bool:
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, mmap_threshold) and mallopt(M_TRIM_THRESHOLD, trim_threshold))
