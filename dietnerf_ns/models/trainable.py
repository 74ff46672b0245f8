"""Any nerfstudio model as one that can be trained with the semantic loss."""

from __future__ import annotations

import inspect
from dataclasses import replace

from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.models.splatfacto import SplatfactoModel

from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.models.rasterized import RasterizedModel
from dietnerf_ns.utils.errors import UserError


def trainable_with_semantic_loss(config: ModelConfig) -> ModelConfig:
    """The configuration of the same model as a `SemanticModel`.

    Args:
        config: of any nerfstudio model; left as it is.

    Raises:
        UserError: the model neither renders rays nor is it a splatfacto.
    """
    model = config._target
    if issubclass(model, SemanticModel):
        return config
    if issubclass(model, SplatfactoModel):
        return replace(config, _target=type(model.__name__, (RasterizedModel, model), {}))
    if not renders_rays(model):
        raise UserError(
            f"--pipeline.model: {model.__name__} renders whole images. The semantic loss needs a model that renders "
            "ray bundles, such as nerfacto, tensorf or mipnerf, or one that is derived from splatfacto."
        )
    return replace(config, _target=type(model.__name__, (SemanticModel, model), {}))


def renders_rays(model: type[Model]) -> bool:
    """Whether a model's `get_outputs` takes a `RayBundle`; rasterising models take cameras."""
    (_, first, *_) = inspect.signature(model.get_outputs).parameters.values()
    return "RayBundle" in str(first.annotation) or first.name == "ray_bundle"
