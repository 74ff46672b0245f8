"""Time and memory of the parts of a semantic step: render and encoder, forward and backward."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from nerfstudio.engine.trainer import Trainer

from dietnerf_ns.bench.speed.candidate import NEVER, Candidate, Data, semantic_training_of, train_step, warm_up
from dietnerf_ns.bench.speed.meters import PeakMeter, Stopwatch, median_and_quartiles
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.semantic.loss import semantic_consistency_loss
from dietnerf_ns.utils.errors import in_one_line
from dietnerf_ns.utils.gpu_memory import free_unused_memory, is_out_of_memory

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

    A training step without a semantic view precedes every measurement, so that whatever training computes anew for each
    view, such as grids of the density, is computed in it.

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
        One entry per combination: `size`, `recompute` (whether larger views than a chunk are to be rendered again), and
        either the numbers of the parts and `renders`, what was rendered in each counted repetition, or the `reason` why
        there are none. A render has the number of its `rays`, of those rendered `again` for their gradient, and whether
        activations were `kept`.
    """
    trainer = candidate.trainer(data, folder)
    steps = itertools.count(warm_up(trainer, warmup_seconds))
    device = torch.device(trainer.pipeline.device)
    if what == "memory" and not PeakMeter.works_on(device):
        return
    semantic, _ = semantic_training_of(trainer)
    measure = partial(_times, trainer, steps, repetitions) if what == "time" else partial(_memory, trainer, steps)
    for recompute in (True, False):
        for size in sizes:
            semantic.reconfigure(resolution=size, crop=1.0, checkpoint_render=recompute, every=NEVER)
            yield {"size": size, "recompute": recompute} | _unless_out_of_memory(measure, device)


def _unless_out_of_memory(measure: Callable[[], dict], device: torch.device) -> dict:
    """What is measured, or the reason why it does not fit in a GPU's memory."""
    try:
        return measure()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = in_one_line(error)
    free_unused_memory(device)
    return {"reason": reason}


def _times(trainer: Trainer, steps: Iterator[int], repetitions: int) -> dict:
    watch, renders = Stopwatch(trainer.pipeline.device), []
    for repetition in range(repetitions + 1):
        train_step(trainer, next(steps))
        renders.append(_run_parts(trainer, watch, step=repetition))
    times = {name: median_and_quartiles(values[1:]) for name, values in watch.milliseconds().items()}
    return {"renders": renders[1:]} | times


def _memory(trainer: Trainer, steps: Iterator[int]) -> dict:
    train_step(trainer, next(steps))
    _run_parts(trainer, PeakMeter(trainer.pipeline.device), step=0)  # fills caches that stay in memory
    train_step(trainer, next(steps))
    meter = PeakMeter(trainer.pipeline.device)
    render = _run_parts(trainer, meter, step=1)
    return {"renders": [render], "start": meter.start} | meter.above_start


def _run_parts(trainer: Trainer, part: Stopwatch | PeakMeter, *, step: int) -> dict:
    """Run the parts for the view of a step, and say what was rendered."""
    semantic, model = semantic_training_of(trainer)
    with torch.autocast(trainer.pipeline.device.type, enabled=trainer.mixed_precision):
        inputs = model.gradient_inputs()
        with _rendered_by(model) as rendered, part("render forward"):
            view = semantic.sample_view(step)
            renders = semantic.render(model, view)
        with part("encoder forward"):
            similarity = semantic.similarity(renders, view.target_index)
            loss = semantic_consistency_loss(similarity, weight=semantic.config.weight)
    # As `gradients_of` does in training: outside of autocast, with the scaler's factor.
    loss = trainer.grad_scaler.scale(loss)
    with part("encoder backward"):
        (pixel_gradient,) = torch.autograd.grad(loss, renders)
    with _rendered_by(model) as rendered_again, part("render backward"):
        torch.autograd.grad(renders, inputs, pixel_gradient, allow_unused=True)
    return {
        "rays": sum(rays for rays, _ in rendered),
        "again": sum(rays for rays, _ in rendered_again),
        "kept": all(kept for _, kept in rendered),
    }


@contextlib.contextmanager
def _rendered_by(model: SemanticModel) -> Iterator[list[tuple[int, bool]]]:
    """Inside, each call of the model is noted: the number of its rays, and whether it keeps activations."""
    calls: list[tuple[int, bool]] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: calls.append((len(inputs[0]), torch.is_grad_enabled())))
    try:
        yield calls
    finally:
        hook.remove()
