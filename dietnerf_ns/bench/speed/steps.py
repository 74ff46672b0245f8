"""The cost of a training step. Candidates take turns in one process, so that slow moments of the machine affect all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nerfstudio.engine.trainer import Trainer

from dietnerf_ns.bench.speed.candidate import Candidate, Data, semantic_loss_of, train_step, warm_up
from dietnerf_ns.bench.speed.meters import PeakMeter, Stopwatch, median_and_quartiles

PLAIN_STEPS = 10
"""Memory is measured over at least so many steps because proposal networks are not trained in every one."""


def measure_steps(
    candidates: list[Candidate], data: Data, folder: Path, *, rounds: int, warmup_seconds: float
) -> list[dict]:
    """Average milliseconds of a step, with semantic steps at their own rate.

    Every candidate trains for `warmup_seconds`, at least until its second semantic step. Then each round times one
    period of every candidate: as many steps as lie between two semantic ones.

    Args:
        candidates: the methods to compare.
        data: the photos to train on.
        folder: folder of nerfstudio's logs.
        rounds: number of rounds.
        warmup_seconds: seconds of training before the measurement.

    Returns:
        One entry per candidate. `milliseconds` of an average step and its `ratio` to that of every other candidate in
        the same round have median and quartiles over rounds. `plain` and, if there are any, `semantic` steps are
        listed separately.
    """
    trainers = [candidate.trainer(data, folder) for candidate in candidates]
    period = max(_period(trainer) for trainer in trainers)
    steps = [warm_up(trainer, warmup_seconds, period=period) for trainer in trainers]
    watches = [Stopwatch(trainer.pipeline.device) for trainer in trainers]
    for _ in range(rounds):
        for index, trainer in enumerate(trainers):
            for step in range(steps[index], steps[index] + period):
                with watches[index](_kind(trainer, step)):
                    train_step(trainer, step)
            steps[index] += period
    times = [watch.milliseconds() for watch in watches]
    averages = [[float(np.sum(part)) / period for part in _by_round(kinds, rounds)] for kinds in times]
    return [
        {
            "label": candidate.label,
            "rays": candidate.rays,
            "milliseconds": median_and_quartiles(average),
            "ratio": {
                other.label: median_and_quartiles((np.array(average) / others).tolist())
                for other, others in zip(candidates, averages, strict=True)
                if other is not candidate
            },
        }
        | {kind: median_and_quartiles(values) for kind, values in kinds.items()}
        for candidate, kinds, average in zip(candidates, times, averages, strict=True)
    ]


def measure_memory(candidate: Candidate, data: Data, folder: Path) -> dict:
    """Peak memory of plain steps and, if there are any, of semantic steps.

    Args:
        candidate: the method to measure.
        data: the photos to train on.
        folder: folder of nerfstudio's logs.

    Returns:
        `start`: MiB in use between steps; `plain` and `semantic`: peaks above that, in MiB.
    """
    trainer = candidate.trainer(data, folder)
    device = trainer.pipeline.device
    if not PeakMeter.works_on(device):
        return {"label": candidate.label, "reason": "peaks of the resident set can only be reset on Linux"}
    period = _period(trainer)
    first = warm_up(trainer, 0, period=period)
    meter = PeakMeter(device)
    for step in range(first, first + max(period, PLAIN_STEPS)):
        with meter(_kind(trainer, step)):
            train_step(trainer, step)
    return {"label": candidate.label, "start": meter.start} | meter.above_start


def _by_round(kinds: dict[str, list[float]], rounds: int) -> list[list[float]]:
    """The times of all kinds of steps, regrouped by round."""
    pieces = [np.array_split(values, rounds) for values in kinds.values()]
    return [np.concatenate(parts).tolist() for parts in zip(*pieces, strict=True)]


def _kind(trainer: Trainer, step: int) -> str:
    semantic = semantic_loss_of(trainer)
    return "semantic" if semantic is not None and semantic.is_due(step) else "plain"


def _period(trainer: Trainer) -> int:
    """Number of steps from one semantic step to the next; 1 without the semantic loss."""
    semantic = semantic_loss_of(trainer)
    return semantic.config.every if semantic is not None else 1
