"""What a training step costs: candidates in turn in one process, so that a slow moment of the machine hits all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nerfstudio.engine.trainer import Trainer

from dietnerf_ns.bench.speed.candidate import Candidate, Data, train_step, warm_up
from dietnerf_ns.bench.speed.meters import PeakMeter, Stopwatch, spread

PLAIN_STEPS = 10
"""At least so many steps are looked at for their memory: proposal networks do not learn in every one."""


def measure_steps(
    candidates: list[Candidate], data: Data, folder: Path, *, rounds: int, warmup_seconds: float
) -> list[dict]:
    """Average milliseconds of a step, semantic steps included at their own rate.

    Every candidate trains for `warmup_seconds`, at least until its second semantic step; then each round times one
    period of every candidate: as many steps as lie between two semantic ones.

    Returns:
        One entry per candidate: `milliseconds` of an average step and its `ratio` to that of every other candidate in
        the same round (spreads over rounds); `plain` and, if there are any, `semantic` steps apart.
    """
    trainers = [candidate.trainer(data, folder) for candidate in candidates]
    period = max(_period(trainer) for trainer in trainers)
    steps = [warm_up(trainer, warmup_seconds, period=period) for trainer in trainers]
    watches = [Stopwatch(trainer.pipeline.device) for trainer in trainers]
    for _ in range(rounds):
        for index, trainer in enumerate(trainers):
            for step in range(steps[index], steps[index] + period):
                with watches[index]("semantic" if _is_semantic(trainer, step) else "plain"):
                    train_step(trainer, step)
            steps[index] += period
    times = [watch.milliseconds() for watch in watches]
    averages = [[float(np.sum(part)) / period for part in _by_round(kinds, rounds)] for kinds in times]
    return [
        {
            "label": candidate.label,
            "rays": candidate.rays,
            "milliseconds": spread(average),
            "ratio": {
                other.label: spread((np.array(average) / others).tolist())
                for other, others in zip(candidates, averages, strict=True)
                if other is not candidate
            },
        }
        | {kind: spread(values) for kind, values in kinds.items()}
        for candidate, kinds, average in zip(candidates, times, averages, strict=True)
    ]


def measure_memory(candidate: Candidate, data: Data, folder: Path) -> dict:
    """Peak memory of a plain step, and of a semantic one if there are any.

    Returns:
        `start`: MiB in use between steps; `plain` and `semantic`: peaks above that.
    """
    trainer = candidate.trainer(data, folder)
    device = trainer.pipeline.device
    if not PeakMeter.works_on(device):
        return {"label": candidate.label, "reason": "peaks of the resident set can only be reset on Linux"}
    period = _period(trainer)
    step = warm_up(trainer, 0, period=period)
    meter = PeakMeter(device)
    for later in range(step, step + max(period, PLAIN_STEPS)):
        with meter("semantic" if _is_semantic(trainer, later) else "plain"):
            train_step(trainer, later)
    return {"label": candidate.label, "start": meter.start} | meter.above_start


def _by_round(kinds: dict[str, list[float]], rounds: int) -> list[list[float]]:
    pieces = [np.array_split(values, rounds) for values in kinds.values()]
    return [np.concatenate(parts).tolist() for parts in zip(*pieces, strict=True)]


def _semantic(trainer: Trainer):
    return getattr(trainer.pipeline, "semantic", None)


def _is_semantic(trainer: Trainer, step: int) -> bool:
    semantic = _semantic(trainer)
    return semantic is not None and semantic.is_due(step)


def _period(trainer: Trainer) -> int:
    semantic = _semantic(trainer)
    return semantic.config.every if semantic is not None and semantic.encoder is not None else 1
