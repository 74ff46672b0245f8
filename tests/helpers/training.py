"""Training steps as nerfstudio's trainer takes them, without its checkpoints, optimizers and loggers."""

from __future__ import annotations

from types import SimpleNamespace

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from torch import Tensor

from dietnerf_ns.pipeline import DietNeRFPipeline


def start_training(
    pipeline: DietNeRFPipeline,
    *,
    total_steps: int = 100,
    start_step: int = 0,
    writers: str = "",
    optimizers: Optimizers | None = None,
) -> list[TrainingCallback]:
    """The callbacks that the trainer would run; the encoder is loaded and the photos are embedded.

    Args:
        pipeline: made for training.
        total_steps: of the run.
        start_step: where the run is resumed.
        writers: event writers that are enabled, such as `tensorboard`.
        optimizers: nerfstudio's collection of optimizers; an empty one if None.
    """
    config = SimpleNamespace(
        machine=SimpleNamespace(seed=0),
        max_num_iterations=total_steps - start_step,
        is_tensorboard_enabled=lambda: "tensorboard" in writers,
        is_wandb_enabled=lambda: False,
        is_comet_enabled=lambda: False,
    )
    optimizers = optimizers or Optimizers({}, {})
    trainer = SimpleNamespace(config=config, optimizers=optimizers, _start_step=start_step, mixed_precision=False)
    return pipeline.get_training_callbacks(TrainingCallbackAttributes(optimizers, None, pipeline, trainer))


def train_step(pipeline: DietNeRFPipeline, callbacks: list[TrainingCallback], step: int) -> dict[str, Tensor]:
    """A step without its optimizers; returns the losses."""
    for callback in callbacks:
        callback.run_callback_at_location(step, location=TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
    losses = pipeline.get_train_loss_dict(step)[1]
    for callback in callbacks:
        callback.run_callback_at_location(step, location=TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
    return losses
