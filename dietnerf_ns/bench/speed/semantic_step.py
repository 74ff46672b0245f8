"""What a semantic step is made of: render forward, encoder forward, encoder backward, render backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from nerfstudio.engine.trainer import Trainer

from dietnerf_ns.bench.speed.candidate import Candidate, Data, warm_up
from dietnerf_ns.bench.speed.meters import PeakMeter, Stopwatch, spread
from dietnerf_ns.semantic.loss import semantic_consistency_loss
from dietnerf_ns.utils.errors import in_one_line

PARTS = ("render forward", "encoder forward", "encoder backward", "render backward")


def split_semantic_step(
    candidate: Candidate,
    data: Data,
    folder: Path,
    *,
    sizes: list[int],
    repetitions: int,
    warmup_seconds: float,
    what: str,
) -> Iterator[dict]:
    """Measure the parts of a semantic step, with and without recomputing the render, from small to large.

    Args:
        candidate: with L_sc.
        data: what to train on.
        folder: where nerfstudio writes its logs.
        sizes: shorter sides of the semantic view in pixels.
        repetitions: of each combination, in turn, after one that is not counted.
        warmup_seconds: of training before anything is measured.
        what: `time` (milliseconds, spreads) or `memory` (MiB: peaks above `start`, in use between steps). The two must
            not be measured in one process, for exact memory makes a CPU slow.

    Yields:
        One entry per size and way: `size`, `recompute`, and the parts' numbers, or the `reason` why there are none.
    """
    trainer = candidate.trainer(data, folder)
    warm_up(trainer, warmup_seconds)
    device = trainer.pipeline.device
    if what == "memory" and not PeakMeter.works_on(device):
        return
    for recompute in (True, False):
        for size in sizes:
            entry = {"size": size, "recompute": recompute}
            trainer.pipeline.semantic.config = replace(
                trainer.pipeline.semantic.config, resolution=size, crop=1.0, checkpoint_render=recompute
            )
            try:
                yield entry | (_times(trainer, repetitions) if what == "time" else _memory(trainer))
            except torch.OutOfMemoryError as error:
                yield entry | {"reason": in_one_line(error)}


def _times(trainer: Trainer, repetitions: int) -> dict:
    watch = Stopwatch(trainer.pipeline.device)
    for repetition in range(repetitions + 1):
        _walk_through(trainer, watch, step=repetition)
    return {name: spread(values[1:]) for name, values in watch.milliseconds().items()}


def _memory(trainer: Trainer) -> dict:
    for repetition in range(2):  # the first also fills caches that stay
        meter = PeakMeter(trainer.pipeline.device)
        _walk_through(trainer, meter, step=repetition)
    return {"start": meter.start} | meter.above_start


def _walk_through(trainer: Trainer, part: Stopwatch | PeakMeter, *, step: int) -> None:
    semantic, model = trainer.pipeline.semantic, trainer.pipeline.model
    with torch.autocast(trainer.pipeline.device.type, enabled=trainer.mixed_precision):
        view, inputs = semantic.sample_view(step), model.gradient_inputs()
        with part("render forward"):
            renders = semantic.render(model, view)
        with part("encoder forward"):
            similarity = semantic.similarity(renders, view.target_index)
            loss = semantic_consistency_loss(similarity, weight=semantic.config.weight)
        with part("encoder backward"):
            (on_pixels,) = torch.autograd.grad(loss, renders)
        with part("render backward"):
            torch.autograd.grad(renders, inputs, on_pixels, allow_unused=True)
