"""One measurement in a process of its own: the next starts with clean memory, and may crash alone.

    python -m dietnerf_ns.bench.speed.probe SPECIFICATION.json RESULTS.jsonl

Results are appended line by line, so that what was measured before a crash stands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dietnerf_ns.bench.speed.candidate import Candidate, Data
from dietnerf_ns.bench.speed.job import whole_job
from dietnerf_ns.bench.speed.roofline import floors
from dietnerf_ns.bench.speed.semantic_step import split_semantic_step
from dietnerf_ns.bench.speed.steps import measure_memory, measure_steps
from dietnerf_ns.bench.speed.target import time_to_psnr


def measure(probe: str, candidates: list[Candidate], data: Data, folder: Path, **how: Any) -> Iterable[dict]:
    """The entries that a probe measures."""
    match probe:
        case "steps":
            return measure_steps(candidates, data, folder, **how)
        case "memory":
            return [measure_memory(candidates[0], data, folder)]
        case "semantic step":
            return split_semantic_step(candidates[0], data, folder, **how)
        case "target":
            return [time_to_psnr(candidates[0], data, folder, **how)]
        case "job":
            return [whole_job(candidates[0], data, folder)]
        case "floor":
            return [floors(candidates[0], data, folder, **how)]
    raise AssertionError(probe)


def main(specification: Path, results: Path) -> None:
    """Measure what the specification says."""
    content = json.loads(specification.read_text())
    candidates = [Candidate(**candidate) for candidate in content.pop("candidates")]
    data = Data(**content.pop("data"))
    with results.open("a") as file:
        for entry in measure(candidates=candidates, data=data, folder=specification.parent, **content):
            file.write(json.dumps(entry) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
