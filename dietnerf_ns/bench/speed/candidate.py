"""The methods that are compared: the same few photos, the same number of rays, everything else as registered."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig

from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.models.metrics import LazyLPIPS
from dietnerf_ns.models.scene import BLENDER_PRESET
from dietnerf_ns.semantic.consistency import SemanticConsistency
from dietnerf_ns.utils.compat import lpips_replaced_by

NEVER = 10**9
WITHOUT_LSC = {"pipeline.semantic.weight": 0.0}
NERFACTO_ON_BLENDER = {f"pipeline.model.{name}": value for name, value in BLENDER_PRESET.items()} | {
    "pipeline.model.camera_optimizer.mode": "off",
    "pipeline.model.use_appearance_embedding": False,
}
"""The settings that nerfacto needs on NeRF-Synthetic scenes. The methods of this package set them by themselves."""


@dataclass(frozen=True)
class Data:
    """The photos that all candidates train on."""

    folder: str
    """Folder of a NeRF-Synthetic scene."""
    protocol: str | None = None
    """Name of a published choice of views; None for all training views."""
    scale: float = 1.0
    """Factor on the images' width and height."""


@dataclass(frozen=True)
class Candidate:
    """A registered method with some of its settings changed."""

    label: str
    method: str
    rays: int
    """Rays of a training batch."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings by their dotted names in the configuration, such as `pipeline.semantic.weight`."""

    def trainer(self, data: Data, folder: Path) -> Trainer:
        """Build nerfstudio's trainer of this candidate, ready for its first step and with the test split's images.

        Args:
            data: the photos to train on.
            folder: folder of nerfstudio's logs.
        """
        config: TrainerConfig = copy.deepcopy(all_methods[self.method])
        registered: Any = config.pipeline.datamanager
        config.pipeline.datamanager = FewShotDataManagerConfig(
            dataparser=BlenderDataParserConfig(data=Path(data.folder)),
            protocol=data.protocol,
            camera_res_scale_factor=data.scale,
            train_num_rays_per_batch=self.rays,
            pixel_sampler=registered.pixel_sampler,
        )
        for name, value in self.overrides.items():
            set_in(config, name, value)
        config.machine.device_type = "cuda" if torch.cuda.is_available() else "cpu"
        config.output_dir, config.vis = folder, "tensorboard"
        config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = NEVER
        config.logging.local_writer.enable = False
        config.logging.profiler = "none"
        config.set_timestamp()
        with lpips_replaced_by(LazyLPIPS):
            trainer = config.setup(local_rank=0, world_size=1)
            trainer.setup(test_mode="test")
        trainer.pipeline.train()
        return trainer


def set_in(config: Any, name: str, value: Any) -> None:
    """Change a setting, given its dotted name."""
    *parents, last = name.split(".")
    for parent in parents:
        config = getattr(config, parent)
    assert hasattr(config, last), f"{type(config).__name__} has no {last}"
    setattr(config, last, value)


def semantic_loss_of(trainer: Trainer) -> SemanticConsistency | None:
    """The semantic loss of a trainer; None if its method has none or its weight is 0."""
    semantic = getattr(trainer.pipeline, "semantic", None)
    return semantic if isinstance(semantic, SemanticConsistency) else None


def semantic_training_of(trainer: Trainer) -> tuple[SemanticConsistency, SemanticModel]:
    """The semantic loss and the model of a trainer whose method has both."""
    semantic, model = semantic_loss_of(trainer), trainer.pipeline.model
    assert semantic is not None, f"{trainer.config.method_name} trains without the semantic loss"
    assert isinstance(model, SemanticModel), type(model).__name__
    return semantic, model


def train_step(trainer: Trainer, step: int) -> None:
    """One training step with its callbacks, as in nerfstudio's training loop."""
    for callback in trainer.callbacks:
        callback.run_callback_at_location(step, location=TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
    trainer.train_iteration(step)
    for callback in trainer.callbacks:
        callback.run_callback_at_location(step, location=TrainingCallbackLocation.AFTER_TRAIN_ITERATION)


def warm_up(trainer: Trainer, seconds: float, *, period: int = 1) -> int:
    """Train for some seconds, but not more than half of the run, and to the end of a period.

    Args:
        trainer: trainer before its first step.
        seconds: duration.
        period: number of steps in a period. At least one period is trained.

    Returns:
        The next step.
    """
    started, step, most = time.perf_counter(), 0, trainer.config.max_num_iterations / 2
    while step <= period or step % period or (step < most and time.perf_counter() - started < seconds):
        train_step(trainer, step)
        step += 1
    return step
