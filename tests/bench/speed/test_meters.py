import subprocess
import sys
import time

import pytest
import torch

from dietnerf_ns.bench.speed.meters import MIB, PeakMeter, Stopwatch, median_and_quartiles

CPU = torch.device("cpu")

HOLD_AND_FREE = """
import torch
from dietnerf_ns.bench.speed.meters import PeakMeter
device = torch.device("cpu")
torch.ones(2**22).add(1)  # threads start
kept = torch.ones(2**23)  # 32 MiB that stay
meter = PeakMeter(device)
def work(mib):
    torch.ones(mib * 2**18)
with meter("large"):
    work(200)
with meter("small"):
    work(50)
with meter("small"):
    work(10)
print(meter.above_start["large"], meter.above_start["small"])
"""


def test_stopwatch_times_sections_by_name():
    watch = Stopwatch(CPU)
    for seconds in (0.02, 0.05):
        with watch("sleep"):
            time.sleep(seconds)
    with watch("nothing"):
        pass
    times = watch.milliseconds()
    assert 20 <= times["sleep"][0] < times["sleep"][1] and times["sleep"][1] >= 50
    assert len(times["nothing"]) == 1 and times["nothing"][0] < 20


def test_median_and_quartiles():
    assert median_and_quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == {"median": 3.0, "low": 2.0, "high": 4.0, "n": 5}


@pytest.mark.skipif(not PeakMeter.works_on(CPU), reason="peaks of the resident set can only be reset on Linux")
def test_peaks_are_those_of_tensors_and_independent_of_earlier_ones():
    output = subprocess.run([sys.executable, "-c", HOLD_AND_FREE], capture_output=True, text=True, check=True).stdout
    large, small = map(float, output.split())
    assert large == pytest.approx(200, abs=6) and small == pytest.approx(50, abs=6)


def test_what_other_libraries_hold_on_a_gpu_counts(monkeypatch):
    """No GPU is needed: CUDA's and torch's counters are replaced."""
    used = {"allocated": 100 * MIB, "max_allocated": 300 * MIB, "reserved": 400 * MIB, "on the GPU": 1000 * MIB}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: used["allocated"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: used["max_allocated"])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: used["reserved"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (8000 * MIB - used["on the GPU"], 8000 * MIB))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    meter = PeakMeter(torch.device("cuda"))
    assert meter.start == 100 + 600
    with meter("fused"):
        used["on the GPU"] += 50 * MIB
    assert meter.above_start["fused"] == 200 + 50
