"""Time and memory of the parts of a semantic step: render and encoder, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from nerfstudio.engine.trainer import Trainer

from dietnerf_ns.bench.speed.candidate import Candidate, Data, semantic_training_of, warm_up
from dietnerf_ns.bench.speed.meters import PeakMeter, Stopwatch, median_and_quartiles
from dietnerf_ns.semantic.loss import semantic_consistency_loss
from dietnerf_ns.utils.errors import in_one_line

PARTS = ("render forward", "encoder forward", "encoder backward", "render backward")


def split_semantic_step(
    candidate: Candidate,
    data: Data,
    folder: Path,
    *,
    sizes: Sequence[int],
    repetitions: int,
    warmup_seconds: float,
    what: str,
) -> Iterator[dict]:
    """Measure the parts of a semantic step for each size of the view, with and without recomputing the render.

    Args:
        candidate: a method with the semantic loss.
        data: the photos to train on.
        folder: folder of nerfstudio's logs.
        sizes: shorter sides of the semantic view in pixels.
        repetitions: number of measurements of each combination, after one that is not counted.
        warmup_seconds: seconds of training before the measurement.
        what: `time` (milliseconds, median and quartiles) or `memory` (MiB: peaks above `start`, the memory in use
            between steps). The two must not be measured in one process because exact memory makes a CPU slow.

    Yields:
        One entry per combination: `size`, `recompute`, and the numbers of the parts or the `reason` why there are none.
    """
    trainer = candidate.trainer(data, folder)
    warm_up(trainer, warmup_seconds)
    if what == "memory" and not PeakMeter.works_on(torch.device(trainer.pipeline.device)):
        return
    semantic, _ = semantic_training_of(trainer)
    for recompute in (True, False):
        for size in sizes:
            entry = {"size": size, "recompute": recompute}
            semantic.reconfigure(resolution=size, crop=1.0, checkpoint_render=recompute)
            try:
                yield entry | (_times(trainer, repetitions) if what == "time" else _memory(trainer))
            except torch.OutOfMemoryError as error:
                yield entry | {"reason": in_one_line(error)}


def _times(trainer: Trainer, repetitions: int) -> dict:
    watch = Stopwatch(trainer.pipeline.device)
    for repetition in range(repetitions + 1):
        _run_parts(trainer, watch, step=repetition)
    return {name: median_and_quartiles(values[1:]) for name, values in watch.milliseconds().items()}


def _memory(trainer: Trainer) -> dict:
    meter = PeakMeter(trainer.pipeline.device)
    _run_parts(trainer, meter, step=0)  # fills caches that stay in memory
    meter = PeakMeter(trainer.pipeline.device)
    _run_parts(trainer, meter, step=1)
    return {"start": meter.start} | meter.above_start


def _run_parts(trainer: Trainer, part: Stopwatch | PeakMeter, *, step: int) -> None:
    semantic, model = semantic_training_of(trainer)
    with torch.autocast(trainer.pipeline.device.type, enabled=trainer.mixed_precision):
        view, inputs = semantic.sample_view(step), model.gradient_inputs()
        with part("render forward"):
            renders = semantic.render(model, view)
        with part("encoder forward"):
            similarity = semantic.similarity(renders, view.target_index)
            loss = semantic_consistency_loss(similarity, weight=semantic.config.weight)
    # As `gradients_of` does in training: outside of autocast, with the scaler's factor.
    loss = trainer.grad_scaler.scale(loss)
    with part("encoder backward"):
        (pixel_gradient,) = torch.autograd.grad(loss, renders)
    with part("render backward"):
        torch.autograd.grad(renders, inputs, pixel_gradient, allow_unused=True)
