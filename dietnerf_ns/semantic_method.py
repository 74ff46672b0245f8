"""The semantic consistency loss for any nerfstudio method that renders rays, and for splatfacto."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin

import torch
from nerfstudio.configs.base_config import InstantiateConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager
from nerfstudio.data.datamanagers.parallel_datamanager import ParallelDataManager
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.pipelines.dynamic_batch import DynamicBatchPipeline
from nerfstudio.plugins.types import MethodSpecification

from dietnerf_ns.data.datamanager import FewShotDataManagerConfig, FewShotImageDataManagerConfig
from dietnerf_ns.data.few_shot import FewShotViews, FewShotViewsConfig
from dietnerf_ns.models.trainable import trainable_with_semantic_loss
from dietnerf_ns.pipeline import DietNeRFPipelineConfig, DynamicBatchDietNeRFPipelineConfig
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.training.trainer import SafeTrainer, SafeTrainerConfig
from dietnerf_ns.utils.errors import UserError

VIEWER_HOST = "127.0.0.1"
"""The viewer listens to this machine alone: it has no password. nerfstudio's default is every network interface."""
PIPELINES: Mapping[type, type[DietNeRFPipelineConfig]] = {
    VanillaPipeline: DietNeRFPipelineConfig,
    DynamicBatchPipeline: DynamicBatchDietNeRFPipelineConfig,
}
"""Of nerfstudio's pipelines, those whose training step the semantic loss can be added to, and the result."""


DATAMANAGERS: Mapping[type, type[FewShotViewsConfig]] = {
    VanillaDataManager: FewShotDataManagerConfig,
    ParallelDataManager: FewShotDataManagerConfig,
    FullImageDatamanager: FewShotImageDataManagerConfig,
}
"""Datamanagers that read photos alone, and what takes their place."""
MIX_DATAMANAGERS = ", or one with dietnerf_ns.data.few_shot.FewShotViews in front of it"


def semantic_method(
    method: TrainerConfig | MethodSpecification,
    *,
    name: str,
    description: str,
    semantic: SemanticConfig | None = None,
) -> MethodSpecification:
    """A nerfstudio method with the semantic consistency loss on top, to be registered as a method of its own.

    Model, optimizers, schedules, photometric loss and pixel sampler stay as they are. The data is read by the few-shot
    datamanager, so that `--pipeline.datamanager.num-views` and protocols are there, and the trainer loses no
    checkpoint.

    Args:
        method: nerfstudio's or a plugin's; left as it is. Its model must render ray bundles and return `rgb` and
            `accumulation`, or both with `_coarse` and `_fine`; or it must be derived from splatfacto.
        name: of the new method, as `ns-train` knows it.
        description: one line for `ns-train --help`.
        semantic: settings of the loss; the defaults (CLIP) if not given.

    Raises:
        UserError: the method trains in a way that the loss cannot be added to.
    """
    given = method.config if isinstance(method, MethodSpecification) else method
    config = copy.deepcopy(given)
    trainer_class = _target_of(config)
    _checked(trainer_class, (Trainer, SafeTrainer), f"trainer of its own, {trainer_class.__name__}", name)
    model = config.pipeline.model
    trainable_with_semantic_loss(model)
    pipeline = _pipeline_for(config.pipeline, name)(
        datamanager=_few_shot(config.pipeline.datamanager, name), model=model, semantic=semantic or SemanticConfig()
    )
    _take_over(config.pipeline, pipeline, but=("datamanager", "model"))
    trainer = SafeTrainerConfig()
    _take_over(config, trainer, but=("pipeline",))
    trainer.method_name, trainer.pipeline = name, pipeline
    trainer.machine.device_type = "cuda" if torch.cuda.is_available() else "cpu"
    trainer.viewer.websocket_host = VIEWER_HOST
    return MethodSpecification(config=trainer, description=description)


def _pipeline_for(config: VanillaPipelineConfig, name: str) -> type[DietNeRFPipelineConfig]:
    """The pipeline in place of nerfstudio's, or of one that has nothing but another name."""
    given = _target_of(config)
    pipeline = next((one for one in given.__mro__ if any(map(inspect.isfunction, vars(one).values()))), given)
    return PIPELINES[_checked(pipeline, PIPELINES, f"pipeline of its own, {given.__name__}", name)]


def _few_shot(config: Any, name: str) -> FewShotViewsConfig:
    """The few-shot datamanager with the settings of another one."""
    target = _target_of(config)
    if issubclass(target, FewShotViews):
        return config
    _checked(target, DATAMANAGERS, f"datamanager of its own, {target.__name__}", name, remedy=MIX_DATAMANAGERS)
    (dataset, *_) = (*get_args(config._target), InputDataset)
    if dataset is not InputDataset:
        raise UserError(f"semantic_method {name}: the method trains on more than photos ({dataset.__name__}).")
    few_shot = DATAMANAGERS[target](dataparser=config.dataparser)
    _take_over(config, few_shot)
    return few_shot


def _target_of(config: InstantiateConfig) -> type:
    return get_origin(config._target) or config._target


def _checked(target: type, known: Collection[type], what: str, name: str, *, remedy: str = "") -> type:
    if target not in known:
        names = " or ".join(one.__name__ for one in known)
        raise UserError(
            f"semantic_method {name}: the method has a {what}, that the semantic loss cannot be added to; it needs "
            f"{names}{remedy}."
        )
    return target


def _take_over(source: Any, target: Any, *, but: tuple[str, ...] = ()) -> None:
    """Give a configuration the values of another one, where both have a field of that name."""
    for name in {field.name for field in fields(source)} & {field.name for field in fields(target)}:
        if name not in ("_target", *but):
            setattr(target, name, getattr(source, name))
