"""Loading a checkpoint into a model that was built on another machine, without photos, or by an earlier version."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils.rich_utils import CONSOLE
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dietnerf_ns.data import capture, datamanager, pixel_samplers
from dietnerf_ns.fields.interpolation import channels_last
from dietnerf_ns.fields.surroundings import CubeContraction
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.models.implementation import implementation_of
from dietnerf_ns.models.nerfacto import DietNeRFModel
from dietnerf_ns.utils.errors import UserError

EXTRA_STATE = "_model._extra_state"
OWN_EXTRA_STATE = "_extra_state"
PLANE_DIMENSIONS = 4
CUBE_CENTER = "_model.field.spatial_distortion.center"


def register_old_class_paths() -> None:
    """Let config.yml files of version 0.1 be read: they name classes by the modules that these were in.

    Removable when no run of version 0.1 matters any more.
    """
    old_modules = {
        "dietnerf_ns.datamanager": {
            "FewShotDataManagerConfig": datamanager.FewShotDataManagerConfig,
            "FewShotDataManager": datamanager.FewShotDataManager,
        },
        "dietnerf_ns.pixels": {
            "SubjectPixelSamplerConfig": pixel_samplers.ForegroundPixelSamplerConfig,
            "SubjectPixelSampler": pixel_samplers.ForegroundPixelSampler,
            "OnePhotoPixelSamplerConfig": pixel_samplers.SinglePhotoPixelSamplerConfig,
            "OnePhotoPixelSampler": pixel_samplers.SinglePhotoPixelSampler,
        },
    }
    for name, classes in old_modules.items():
        module = ModuleType(name)
        vars(module).update(classes)
        sys.modules.setdefault(name, module)


def model_for(checkpoint: Mapping[str, Any], model: SemanticModel, *, opens_photos: bool) -> SemanticModel:
    """The model that a checkpoint belongs to, as far as a model depends on the machine and on the photos.

    Rendering opens no photos: the background that they have in common comes with the checkpoint. What was trained
    without tinycudann is rendered without it. The number of members is the checkpoint's. And until version 0.2 scenes
    with surroundings were trained in nerfacto's contraction.

    Args:
        checkpoint: the pipeline's state.
        model: as built from the configuration.
        opens_photos: whether the model was built with a look at the photos.

    Returns:
        The same model, or an untrained one that the checkpoint fits.
    """
    if not isinstance(model, DietNeRFModel):
        return model
    metadata, settings = dict(model.kwargs["metadata"]), {}
    views, state = model.capture, _capture_state(checkpoint.get(EXTRA_STATE, {}))
    if not opens_photos and views is not None and state is not None and not model.config.disable_scene_contraction:
        metadata[capture.CAPTURE] = views.restored(state)
    if model.config.implementation == "tcnn" and implementation_of(checkpoint) == "torch":
        settings["implementation"] = "torch"
    if isinstance(model.field.spatial_distortion, CubeContraction) and CUBE_CENTER not in checkpoint:
        settings["scene"] = "inside-out"
    if (members := members_in(checkpoint)) != 1 + len(model.other_members):
        settings["members"] = members
    if settings or metadata.get(capture.CAPTURE) is not views:
        return model.rebuild(metadata=metadata, **settings)
    return model


def members_in(checkpoint: Mapping[str, Any]) -> int:
    """Number of members of the model in a checkpoint, the pipeline's state."""
    numbers = (re.match(r"_model\.other_members\.(\d+)\.", name) for name in checkpoint)
    return 1 + max((int(match[1]) + 1 for match in numbers if match), default=0)


def check_members(checkpoint: Mapping[str, Any], model: SemanticModel) -> None:
    """Refuse a checkpoint of a model with another number of members, of which nerfstudio would load some.

    Args:
        checkpoint: the pipeline's state.
        model: into which it is to be loaded.

    Raises:
        UserError: the number differs.
    """
    if isinstance(model, DietNeRFModel) and (members := members_in(checkpoint)) != 1 + len(model.other_members):
        raise UserError(
            f"Members: the checkpoint has {members}, this run {1 + len(model.other_members)}. Resume it with "
            f"--pipeline.model.members {members}."
        )


def with_current_planes(checkpoint: Mapping[str, Any], model: SemanticModel) -> Mapping[str, Any]:
    """A pipeline's state with feature planes as they are kept now. Versions up to 0.2 had the channels first.

    Args:
        checkpoint: the pipeline's state.
        model: into which it is loaded; TensoRF, too, has a `plane_coef`.
    """
    if not isinstance(model, DietNeRFModel):
        return checkpoint
    old = ".plane_coef"
    return {
        name.replace(old, ".features"): channels_last(value) if name.endswith(old) else value
        for name, value in checkpoint.items()
    }


def order_moments(optimizers: Optimizers) -> None:
    """Bring what optimizers keep of planes into the order of the planes; see `with_current_planes`."""
    for optimizer in optimizers.optimizers.values():
        for parameter, kept in optimizer.state.items():
            for name, value in kept.items():
                if value.ndim == parameter.ndim == PLANE_DIMENSIONS and value.shape != parameter.shape:
                    ordered = channels_last(value)
                    kept[name] = ordered if ordered.shape == parameter.shape else value


def keep_settings(optimizers: Optimizers) -> None:
    """Let loaded optimizers go on with the settings that they were built with, not those of the checkpoint's run.

    torch takes rates and other numbers from the checkpoint, and nerfstudio's schedules multiply its first rate by a
    factor of the present settings, so that a changed rate would be neither the old nor the new one.
    """
    for name, optimizer in optimizers.optimizers.items():
        _keep_rates(optimizer, optimizers.schedulers.get(name))
        _keep_kernel(optimizer)


def _keep_rates(optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None) -> None:
    first = optimizer.defaults["lr"]
    for index, group in enumerate(optimizer.param_groups):
        before, now = group.get("initial_lr", group["lr"]), group["lr"]
        group.update(optimizer.defaults)
        if scheduler is None:
            continue
        group["initial_lr"] = scheduler.base_lrs[index] = first
        if isinstance(scheduler, LambdaLR):
            group["lr"] = first * scheduler.lr_lambdas[index](scheduler.last_epoch)
        else:
            group["lr"] = first * now / before


def _keep_kernel(optimizer: torch.optim.Optimizer) -> None:
    """Versions up to 0.2 were not fused. GradScaler goes by what an optimizer was built with, Adam by its groups."""
    if "fused" in optimizer.defaults:
        is_fused = optimizer.defaults["fused"]
        for parameter, kept in optimizer.state.items():
            if isinstance(kept.get("step"), torch.Tensor):
                kept["step"] = kept["step"].to(parameter.device if is_fused else "cpu", torch.float32)


def _capture_state(extra_state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the checkpoint kept of the capture, if that includes a background."""
    state = extra_state.get("capture") or {"background": extra_state.get("one_background")}  # the latter: version 0.1
    return None if state["background"] is None else state


def check_complete(checkpoint: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that lacks parts of the pipeline, which nerfstudio itself accepts in silence.

    Args:
        checkpoint: the pipeline's state as it was saved.
        expected: the state of the pipeline that it is loaded into.

    Raises:
        UserError: something is missing.
    """
    missing = expected.keys() - {name.removeprefix("module.") for name in checkpoint}
    if missing:
        raise UserError(
            f"The checkpoint does not fit this model: it lacks {len(missing)} parts, such as {sorted(missing)[0]}. "
            "Was it trained with other settings, or with tinycudann on another machine? "
            "--pipeline.model.implementation torch trains what every machine can load."
        )


@contextlib.contextmanager
def sizes_checked() -> Iterator[None]:
    """Turn torch's list of tensors whose size differs into one line.

    Raises:
        UserError: the checkpoint has such tensors.
    """
    try:
        yield
    except RuntimeError as error:
        sizes = re.findall(r"size mismatch for (\S+): .*?Size\((.*?)\).*?Size\((.*?)\)", str(error))
        if not sizes:
            raise
        name, in_checkpoint, here = sizes[0]
        raise UserError(
            f"The checkpoint does not fit this model: {len(sizes)} parts differ in size, such as {name}, which is "
            f"{in_checkpoint} in the checkpoint and {here} here. Resume with the photos, the size of photos "
            "(--pipeline.datamanager.camera-res-scale-factor) and the settings of the first run."
        ) from error


@contextlib.contextmanager
def taken_over_sizes_said(model: SemanticModel) -> Iterator[None]:
    """Say it if loading inside gives parameters the checkpoint's size in place of that of the settings."""
    before = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    yield
    after = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    changed = [name for name, shape in after.items() if shape != before[name]]
    if changed:
        name = changed[-1]
        CONSOLE.print(
            f"[yellow]{len(changed)} parts of the model have the checkpoint's size and not that of these settings, "
            f"such as {name}: {after[name]} instead of {before[name]}.[/yellow]",
            soft_wrap=True,
        )
