import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from dietnerf_ns.utils.malloc import {function}
assert {function}()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def allocate():
    for _ in range(50):
        torch.empty(2**20).fill_(1.0)  # 4 MiB
allocate()
before = faults()
allocate()
print(faults() - before)
"""


def page_faults(function: str) -> int:
    """Page faults of allocating and freeing the same 4 MiB fifty times, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(function=function)], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is on Linux")
def test_freed_memory_is_used_again_or_given_back():
    assert page_faults("keep_freed_memory") < 100
    assert page_faults("return_freed_memory") > 50 * 2**22 / 2**12 / 2  # half of all pages: some may be huge
