"""One measurement in its own process, so that it starts with clean memory and a crash does not affect the others.

    python -m dietnerf_ns.bench.speed.probe SPECIFICATION.json RESULTS.jsonl

Results are appended line by line, so that those from before a crash are kept.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dietnerf_ns.bench.speed.candidate import Candidate, Data
from dietnerf_ns.bench.speed.job import whole_job
from dietnerf_ns.bench.speed.roofline import roofline
from dietnerf_ns.bench.speed.semantic_step import split_semantic_step
from dietnerf_ns.bench.speed.steps import measure_memory, measure_steps
from dietnerf_ns.bench.speed.target import time_to_psnr


def measure(probe: str, candidates: list[Candidate], data: Data, folder: Path, **options: Any) -> Iterable[dict]:
    """Run a probe.

    Args:
        probe: its kind.
        candidates: the methods to measure; only `steps` takes more than one.
        data: the photos to train on.
        folder: folder of nerfstudio's logs.
        options: keyword arguments of the function that measures.

    Returns:
        The entries that the probe measured.
    """
    match probe:
        case "steps":
            return measure_steps(candidates, data, folder, **options)
        case "memory":
            return [measure_memory(candidates[0], data, folder)]
        case "semantic step":
            return split_semantic_step(candidates[0], data, folder, **options)
        case "target":
            return [time_to_psnr(candidates[0], data, folder, **options)]
        case "job":
            return [whole_job(candidates[0], data, folder)]
        case "floor":
            return [roofline(candidates[0], data, folder, **options)]
    raise AssertionError(probe)


def main(specification: Path, results: Path) -> None:
    """Run the probe that the specification describes. SIGTERM ends it with what it has started."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    content = json.loads(specification.read_text())
    candidates = [Candidate(**candidate) for candidate in content.pop("candidates")]
    data = Data(**content.pop("data"))
    with results.open("a") as file:
        for entry in measure(candidates=candidates, data=data, folder=specification.parent, **content):
            file.write(json.dumps(entry) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
