import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

from dietnerf_ns.bench.speed.candidate import Candidate, Data
from dietnerf_ns.bench.speed.meters import PeakMeter
from dietnerf_ns.bench.speed.semantic_step import PARTS, split_semantic_step
from dietnerf_ns.methods import TINY_SCENE
from dietnerf_ns.semantic.consistency import SemanticConsistency


def test_every_part_is_timed_for_every_size_with_and_without_recomputing(small, data, tmp_path):
    entries = list(
        split_semantic_step(small, data, tmp_path, sizes=[12, 32], repetitions=2, warmup_seconds=0, what="time")
    )
    assert [(e["size"], e["recompute"]) for e in entries] == [(12, True), (32, True), (12, False), (32, False)]
    assert all(entry[part]["n"] == 2 and entry[part]["median"] > 0 for entry in entries for part in PARTS)
    small_view, large_view = entries[:2]
    assert large_view["render forward"]["median"] > small_view["render forward"]["median"]


def test_views_are_not_cropped_even_if_the_methods_are(small, data, tmp_path, monkeypatch):
    sizes, render = [], SemanticConsistency.render
    monkeypatch.setattr(
        SemanticConsistency, "render", lambda self, model, view: sizes.append(view.size) or render(self, model, view)
    )
    cropped = replace(small, overrides=small.overrides | {"pipeline.semantic.crop": 0.5})
    list(split_semantic_step(cropped, data, tmp_path, sizes=[12], repetitions=1, warmup_seconds=0, what="time"))
    assert sizes[-1] == (12, 12)


@pytest.mark.skipif(
    not PeakMeter.works_on(torch.device("cpu")), reason="peaks of the resident set can only be reset on Linux"
)
@pytest.mark.slow
def test_memory_of_a_semantic_view_does_not_grow_with_its_size(tmp_path):
    """dietnerf-tiny in a process of its own, from 80 to 160 pixels, which is four times as many rays."""
    specification, results = tmp_path / "probe.json", tmp_path / "probe.jsonl"
    options = {"sizes": [80, 160], "repetitions": 1, "warmup_seconds": 0, "what": "memory"}
    candidate = Candidate("ours", "dietnerf-tiny", 640, {"pipeline.semantic.rays_per_chunk": 640})
    described = {"candidates": [asdict(candidate)], "data": asdict(Data(str(TINY_SCENE)))}
    specification.write_text(json.dumps({"probe": "semantic step"} | described | options))
    command = [sys.executable, "-m", "dietnerf_ns.bench.speed.probe", specification, results]
    subprocess.run(command, check=True, capture_output=True)
    small, large, small_kept, large_kept = map(json.loads, results.read_text().splitlines())
    activations = large_kept["render forward"] - small_kept["render forward"]
    assert large_kept["render forward"] > 3 * small_kept["render forward"] > 3 * small["render forward"]
    for part in PARTS:
        assert large["start"] + large[part] < 1.03 * (small["start"] + small[part]), part
        assert large[part] - small[part] < 0.1 * activations, f"{part}: rays and colours, but no activations"
