"""The recipe of one training step: photometric loss; is a semantic view due?; render it; compare it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.fields.base_field import Field
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.pipelines.dynamic_batch import DynamicBatchPipeline, DynamicBatchPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.cuda.amp.grad_scaler import GradScaler
from torchmetrics import Metric

from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.data.few_shot import HOW_TO_NAME_EVAL_IMAGES, FewShotViews, FewShotViewsConfig
from dietnerf_ns.data.pixel_samplers import SinglePhotoPixelSampler
from dietnerf_ns.models.base import SemanticModel, proposal_updates_kept
from dietnerf_ns.models.metrics import without_means_of_missing
from dietnerf_ns.models.nerfacto import DietNeRFModelConfig
from dietnerf_ns.models.rasterized import RasterizedModel
from dietnerf_ns.models.trainable import trainable_with_semantic_loss
from dietnerf_ns.semantic.consistency import SemanticConfig, SemanticConsistency
from dietnerf_ns.semantic.gradient_limit import Gradients, add_gradients, gradients_of, limit_norm, with_gradients
from dietnerf_ns.training.checkpoints import (
    OWN_EXTRA_STATE,
    check_complete,
    check_members,
    model_for,
    sizes_checked,
    taken_over_sizes_said,
    with_current_planes,
)
from dietnerf_ns.training.collapse import CollapseDetector, photo_variance
from dietnerf_ns.training.nonfinite import BadSteps, Part, all_finite, is_searching, restart_search
from dietnerf_ns.training.photos import camera_fingerprint, say_if_photos_differ
from dietnerf_ns.utils.compat import hide_known_warnings, steps_of_run
from dietnerf_ns.utils.distributed import (
    average,
    average_scalars,
    copy_from_main_process,
    draw_number,
    main_process_first,
)
from dietnerf_ns.utils.errors import UserError, check_limits, flags_under
from dietnerf_ns.utils.malloc import keep_freed_memory
from dietnerf_ns.utils.seeding import seed_everything
from dietnerf_ns.utils.settings import changed_fields
from dietnerf_ns.viewer.image_log import SemanticImageLog
from dietnerf_ns.viewer.panel import ViewerPanel
from dietnerf_ns.viewer.semantic import SemanticFolder
from dietnerf_ns.viewer.visualization import SemanticVisualization

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig

SEMANTIC_FLAGS = "--pipeline.semantic."
AFTER_STEP = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]


@dataclass
class DietNeRFPipelineConfig(VanillaPipelineConfig):
    """A model trained on few views with the semantic consistency loss on top."""

    _target: type = field(default_factory=lambda: DietNeRFPipeline)
    datamanager: FewShotViewsConfig = field(default_factory=FewShotDataManagerConfig)
    """specifies the datamanager config"""
    model: ModelConfig = field(default_factory=DietNeRFModelConfig)
    """specifies the model config"""
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    """The semantic consistency loss."""
    max_restarts: int = 2
    """How often a run whose training collapses early is restarted from a new initialisation; 0 turns this off. Only the
    models of this package are restarted."""


class DietNeRFPipeline(VanillaPipeline):
    """nerfstudio's pipeline with, every few steps, a view that nobody photographed.

    Args:
        config: data, model and semantic loss; any ray-based nerfstudio model or splatfacto, see `models.trainable`.
        device: training device.
        world_size: number of processes, one for each GPU; see `utils.distributed`.
        grad_scaler: the trainer's, which half precision needs.

    Raises:
        UserError: a model that cannot be trained with the loss, or not in several processes, or settings that cannot
            work.
    """

    config: DietNeRFPipelineConfig
    datamanager: FewShotViews
    semantic: SemanticConsistency | None = None
    """The semantic loss of a training with a weight above 0; None before training starts and outside of it."""

    def __init__(
        self,
        config: DietNeRFPipelineConfig,
        device: torch.device | str,
        world_size: int = 1,
        grad_scaler: GradScaler | None = None,
        **kwargs,
    ):
        hide_known_warnings()
        with flags_under("--pipeline."):
            check_limits(config, {"max_restarts": (config.max_restarts >= 0, "at least 0")})
        with flags_under(SEMANTIC_FLAGS):
            config.semantic.check()
        model = trainable_with_semantic_loss(config.model)
        if isinstance(model, DietNeRFModelConfig):
            model = model.fitted_to(config.datamanager.dataparser)
        if world_size > 1 and issubclass(model._target, RasterizedModel):
            raise UserError(
                f"--machine.num-devices: {model._target.__name__} trains in one process, because each would grow "
                "Gaussians of its own; use --machine.num-devices 1."
            )
        config = replace(config, model=model)
        # nerfstudio would wrap the model in DistributedDataParallel.
        super().__init__(config, str(device), world_size=1, grad_scaler=grad_scaler, **kwargs)
        self.world_size = world_size
        copy_from_main_process(self.model)
        trains = self.test_mode == "val"
        if trains and config.semantic.weight > 0 and self.datamanager.includes_time:
            raise UserError(
                "Data: the photos show a scene that moves, and an unseen view has no time. Use a still scene."
            )
        self.dietnerf = ViewerPanel(self.datamanager.train_dataset, config.semantic if trains else None)
        self.collapse_detector = CollapseDetector()
        self.bad_steps = BadSteps()
        self._total_steps: int | None = None
        self._switched_off: str | None = None
        self._switched_off_with: str | None = None
        self._fit_to_photos: dict[str, Tensor] = {}
        self._seed = 0
        self._grad_scaler = grad_scaler

    @property
    def model(self) -> SemanticModel:
        """The model, without the wrapper of distributed training."""
        return cast(SemanticModel, super().model)

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Called once before training: the encoder is loaded and the photos are embedded here."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        trainer = training_callback_attributes.trainer
        if trainer is None:
            return callbacks
        if self.device.type == "cpu":
            keep_freed_memory()
        self._seed = trainer.config.machine.seed
        self._say_if_schedules_differ(trainer)
        self._say_if_photos_are_drawn_anew(trainer)
        if self.config.semantic.weight > 0:
            self.semantic = self._semantic_consistency(steps_of_run(trainer), mixed_precision=trainer.mixed_precision)
            self.semantic.switched_off = self._still_switched_off(mixed_precision=trainer.mixed_precision)
            self.semantic.say_if_there_are_none(self._whole_scene_from(self.semantic), first_step=trainer._start_step)
            self._say_what_is_ignored()
        if self.model.needs_background_rays:
            self.datamanager.mark_background()
        if self.config.max_restarts > 0 and self.model.can_restart:
            callbacks.append(self._callback_to_restart(trainer))
        return callbacks + self._callbacks_to_show(trainer.config)

    def _say_if_photos_are_drawn_anew(self, trainer: Trainer) -> None:
        drawn = getattr(self.config.datamanager, "train_num_images_to_sample_from", -1)
        if trainer._start_step > 0 and 0 <= drawn < len(self.datamanager.train_dataset):
            CONSOLE.print(
                f"[yellow]--pipeline.datamanager.train-num-images-to-sample-from {drawn}: the resumed run draws its "
                "photos anew, and does not continue exactly as it would have.[/yellow]",
                soft_wrap=True,
            )

    def _say_if_schedules_differ(self, trainer: Trainer) -> None:
        planned, self._total_steps = self._total_steps, steps_of_run(trainer)
        if planned is None or planned == self._total_steps or trainer._start_step == 0:
            return
        left = planned - trainer._start_step
        CONSOLE.print(
            f"The run that is resumed was to end after {planned} steps; this one ends after {self._total_steps}. "
            + (
                f"With --max-num-iterations {left} it ends as it would have."
                if left > 0
                else "Learning rates, finer levels and the growth of space go back to where such a run has them now."
            ),
            soft_wrap=True,
        )

    def _semantic_consistency(self, total_steps: int, *, mixed_precision: bool) -> SemanticConsistency:
        with flags_under(SEMANTIC_FLAGS), main_process_first():
            return SemanticConsistency(
                self.config.semantic,
                self.datamanager.train_dataset,
                blend=self.model.blend_background,
                device=self.device,
                rays_per_batch=self._rays_per_batch(),
                total_steps=total_steps,
                seed=self._seed,
                half_precision=mixed_precision and self.device.type == "cuda",
            )

    def _still_switched_off(self, *, mixed_precision: bool) -> str | None:
        """Why the loss of a resumed run stays off, with a line; None if it was on, or with other settings than then."""
        before, self._switched_off_with = self._switched_off_with, f"{self.config.semantic}, {mixed_precision}"
        if self._switched_off is None or before != self._switched_off_with:
            return None
        CONSOLE.print(
            f"[yellow]The semantic loss stays switched off, because {self._switched_off} in the run that is resumed. "
            "With other settings of it, or with --mixed-precision False, it is tried again.[/yellow]",
            soft_wrap=True,
        )
        return self._switched_off

    def _say_what_is_ignored(self) -> None:
        unused: tuple[str, ...] = () if self.model.has_fixed_samples else ("sample_fraction",)
        if isinstance(self.model, RasterizedModel):
            unused = ("sample_fraction", "rays_per_chunk", "checkpoint_render")
        if changed := changed_fields(self.config.semantic, unused):
            flags = ", ".join(f"{SEMANTIC_FLAGS}{name.replace('_', '-')}" for name in changed)
            CONSOLE.print(f"[yellow]Ignored with this model: {flags}.[/yellow]", soft_wrap=True)

    def _whole_scene_from(self, semantic: SemanticConsistency) -> int:
        return self.model.whole_scene_from(semantic.total_steps)

    def _rays_per_batch(self) -> int:
        return self.datamanager.get_train_rays_per_batch()

    def _callback_to_restart(self, trainer: Trainer) -> TrainingCallback:
        photos, sampler = self.datamanager.train_dataset, self.datamanager.train_pixel_sampler
        other_rays = 0
        if isinstance(sampler, SinglePhotoPixelSampler) and not photos.has_masks:
            other_rays = sampler.config.centre_steps
        arguments = {
            "optimizers": trainer.optimizers,
            "total_steps": steps_of_run(trainer),
            "photo_variance": photo_variance(photos, self.model.blend_background, sampler),
            "other_rays": other_rays,
        }
        return TrainingCallback(AFTER_STEP, self._restart_if_collapsed, 1, kwargs=arguments)

    def _callbacks_to_show(self, trainer: TrainerConfig) -> list[TrainingCallback]:
        """Semantic steps in the viewer and in the event writers that are enabled."""
        callbacks = []
        visualization = SemanticVisualization(self.datamanager.train_dataset, self.model.blend_background)
        folder = self.dietnerf.semantic_consistency
        if self.dietnerf.in_viewer and isinstance(folder, SemanticFolder):
            if self.semantic is not None:
                folder.attach(self.semantic, visualization)
            callbacks.append(TrainingCallback(AFTER_STEP, self._update_panel, 1, args=[folder]))
            callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], folder.end))
        writes = trainer.is_tensorboard_enabled() or trainer.is_wandb_enabled() or trainer.is_comet_enabled()
        if writes and self.semantic is not None:
            log = SemanticImageLog(self.semantic, visualization)
            callbacks.append(TrainingCallback(AFTER_STEP, log.after_step, 1))
        return callbacks

    def _update_panel(self, folder: SemanticFolder, step: int) -> None:
        folder.after_step(step, mse=self._fit_to_photos["mse"])

    def _restart_if_collapsed(
        self, step: int, *, optimizers: Optimizers, total_steps: int, photo_variance: float, other_rays: int
    ) -> None:
        if self.bad_steps.photometric_left_out:
            return
        detector, limit = self.collapse_detector, self.config.max_restarts
        collapse = detector.update(
            step,
            **self._fit_to_photos,
            total_steps=total_steps,
            photo_variance=photo_variance,
            other_rays=other_rays,
        )
        if collapse is None:
            return
        if not detector.can_restart(step, limit=limit, total_steps=total_steps, other_rays=other_rays):
            line = f"Training collapsed at step {step}: {collapse}; too few steps are left for a restart."
            if detector.restarts > 0:
                line = f"Training collapsed again at step {step}: {collapse}. Continuing without another restart."
            CONSOLE.print(f"[bold red]{line}[/bold red]")
            detector.give_up()
            return
        detector.restart(step + 1)
        CONSOLE.print(
            f"[bold yellow]Training collapsed at step {step}: {collapse}. "
            f"Restart {detector.restarts} of {limit} from a new initialisation."
        )
        self.model.load_state_dict(self.model.rebuild().state_dict())
        copy_from_main_process(self.model)
        for optimizer in optimizers.optimizers.values():
            optimizer.state.clear()
        self.model.begin_attempt(detector.first_step)
        if self.semantic is not None:
            whole_from = self._whole_scene_from(self.semantic)
            self.semantic.say_if_there_are_none(whole_from, first_step=detector.first_step)

    def get_extra_state(self) -> dict[str, Any]:
        """What a resumed run needs to continue exactly as it would have, and to notice that it does not.

        That is what the collapse detector has seen, the number of steps of the run, the training cameras, and why the
        semantic loss was switched off, if it was.
        """
        run = {
            "total_steps": self._total_steps,
            "cameras": self._camera_fingerprint(),
            "semantic_switched_off": None if self.semantic is None else self.semantic.switched_off,
            "semantic_switched_off_with": self._switched_off_with,
        }
        return self.collapse_detector.state() | run

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` saved; until version 0.2 it was the collapse detector's alone."""
        self._total_steps = state.get("total_steps")
        self._switched_off = state.get("semantic_switched_off")
        self._switched_off_with = state.get("semantic_switched_off_with")
        names = {field.name for field in fields(CollapseDetector)}
        self.collapse_detector = CollapseDetector(**{name: state[name] for name in names & state.keys()})
        self.model.begin_attempt(self.collapse_detector.first_step)

    def _camera_fingerprint(self) -> list[list[float]] | None:
        photos = self.datamanager.train_dataset
        return None if photos is None else camera_fingerprint(photos.cameras)

    def get_eval_loss_dict(self, step: int):
        """The losses of a batch of evaluation rays, which change nothing in training."""
        with proposal_updates_kept(self.model):
            return super().get_eval_loss_dict(step)

    def get_train_loss_dict(self, step: int):
        """One training step's losses, already weighted; nerfstudio sums them."""
        seed_everything(self._seed, draw_number(step))
        self.datamanager.begin_step(step - self.collapse_detector.first_step)
        outputs, losses, metrics = super().get_train_loss_dict(step)
        mse, opacity = average_scalars(
            self.model.photometric_mse(losses).detach(), self.model.mean_opacity(outputs).detach()
        )
        self._fit_to_photos = {"mse": mse, "opacity": opacity}
        if self.semantic is not None:
            if self.semantic.is_due(step) and step >= self._whole_scene_from(self.semantic):
                # Nothing may keep the photometric activations alive.
                outputs = {name: output.detach() for name, output in outputs.items() if isinstance(output, Tensor)}
                metrics = _detached(metrics)
                losses = self._with_semantic_loss(self.semantic, losses, step)
            # Between semantic steps the last values are repeated, so that the logged curves have no gaps.
            if self.semantic.is_active(step) and self.semantic.last is not None:
                metrics["semantic_loss"] = self.semantic.last.loss
                metrics["semantic_similarity"] = self.semantic.last.similarity
        return outputs, losses, metrics

    def _with_semantic_loss(
        self, semantic: SemanticConsistency, losses: dict[str, Tensor], step: int
    ) -> dict[str, Tensor]:
        """All losses of a semantic step: their values, and on the semantic one the gradient of them all.

        Gradients are taken here, first the photometric and then the semantic one: each loss's activations are freed
        before the other's are made, and one gradient can be limited relative to the other.

        Args:
            semantic: the loss.
            losses: the photometric ones; emptied, because what they hold is in the way of the semantic view.
            step: of the run.
        """
        tensors = self.model.gradient_inputs()
        loss_scale = self._grad_scaler.get_scale() if self._grad_scaler is not None else 1.0
        total = sum(losses.values(), torch.zeros((), device=self.device))
        photometric = gradients_of(total, tensors, loss_scale=loss_scale)
        values, total = _detached(losses), total.detach()
        losses.clear()
        total, photometric = _means(total, photometric, tensors)
        _detach_what_modules_keep(self.model)
        photometric = self._without_bad(photometric, total, "photometric")
        semantic_loss, on_view = semantic.loss_and_gradients(self.model, step, tensors, loss_scale=loss_scale)
        semantic_loss, on_view = _means(semantic_loss.detach(), on_view, tensors)
        on_view = self._without_bad(on_view, semantic_loss, "semantic")
        if self.bad_steps.at_limit == "semantic":
            self._switch_off(semantic, step)
        if self.bad_steps.photometric_left_out and semantic.config.max_gradient_ratio > 0:
            nothing: Gradients = [None] * len(tensors)  # it would have no limit
            on_view = nothing
        on_view = limit_norm(on_view, photometric, ratio=semantic.config.max_gradient_ratio)
        combined = with_gradients(semantic_loss, add_gradients(photometric, on_view), tensors)
        return values | {"semantic_loss": combined}

    def _switch_off(self, semantic: SemanticConsistency, step: int) -> None:
        self.bad_steps.is_fine("semantic")
        if self._grad_scaler is not None:
            restart_search(self._grad_scaler)
        semantic.switched_off = f"its gradient was not finite {self.bad_steps.LIMIT} times in a row"
        CONSOLE.print(
            f"[bold yellow]Step {step}: the semantic loss is switched off, because {semantic.switched_off}. Training "
            "goes on without it. Lower its weight, use another encoder, or train with --mixed-precision False."
            "[/bold yellow]",
            soft_wrap=True,
        )

    def _without_bad(self, gradients: Gradients, loss: Tensor, part: Part) -> Gradients:
        """The gradients of a part of the losses; none at all if the loss or one of them is not finite.

        A scaler that still looks for its scale gets them as they are, because it goes by them.
        """
        searches = self._grad_scaler is not None and is_searching(self._grad_scaler)
        if not all_finite([loss]):
            self.bad_steps.note(part, "loss")
        elif not searches and not all_finite(gradients):
            self.bad_steps.note(part, "gradient")
        else:
            self.bad_steps.is_fine(part)
            return gradients
        return [None] * len(gradients)

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict:
        """Mean metrics over the evaluation images; for ns-eval also which metrics are missing and why."""
        if not self.datamanager.has_eval_images:
            raise UserError(
                f"There are no evaluation images because every photo is trained on. {HOW_TO_NAME_EVAL_IMAGES}"
            )
        means = super().get_average_eval_image_metrics(step, output_path, get_std)
        metrics = without_means_of_missing(means, self.model)
        if step is not None:  # during training the metrics go to writers that accept numbers only
            return metrics
        missing = self.model.missing_metrics()
        formats = {"psnr": "PSNR {:.2f} dB", "ssim": "SSIM {:.3f}"}
        known = [text.format(metrics[name]) for name, text in formats.items() if name in metrics]
        CONSOLE.print(f"{', '.join(known)}; left out: {', '.join(missing) or 'none'}.")
        return metrics | {"left_out": missing}

    def load_pipeline(self, loaded_state: dict, step: int) -> None:
        """Load a checkpoint.

        Raises:
            UserError: the checkpoint belongs to another model.
        """
        if self.test_mode != "val":
            model = model_for(loaded_state, self.model, opens_photos=self.test_mode != "inference")
            if model is not self.model:
                self._model = model.to(self.device).train(self.training)
        check_members(loaded_state, self.model)
        loaded_state = dict(with_current_planes(loaded_state, self.model))
        check_complete(loaded_state, self.state_dict())
        resumes = self.test_mode == "val"
        with sizes_checked(), taken_over_sizes_said(self.model) if resumes else contextlib.nullcontext():
            super().load_pipeline(loaded_state, step)
        cameras = loaded_state.get(OWN_EXTRA_STATE, {}).get("cameras")
        say_if_photos_differ(cameras, self._camera_fingerprint(), self.model, opens_photos=resumes)


def _means(loss: Tensor, gradients: Gradients, tensors: list[Tensor]) -> tuple[Tensor, Gradients]:
    """A loss and its gradients as means over the processes of the run, which then all decide alike."""
    return average_scalars(loss)[0], average(gradients, like=tensors)


def _detach_what_modules_keep(model: SemanticModel) -> None:
    """nerfstudio's fields keep their last density, metrics their last value, and both with it all of a step's graph.

    torch frees the activations in it. What libraries such as tinycudann keep there lives as long as the graph.
    """
    for module in (module for module in model.modules() if isinstance(module, (Field, Metric))):
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                vars(module)[name] = value.detach()


def _detached(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in values.items()}


@dataclass
class DynamicBatchDietNeRFPipelineConfig(DietNeRFPipelineConfig, DynamicBatchPipelineConfig):
    """The same for a model whose number of samples along a ray varies, such as instant-ngp."""

    _target: type = field(default_factory=lambda: DynamicBatchDietNeRFPipeline)


class DynamicBatchDietNeRFPipeline(DietNeRFPipeline, DynamicBatchPipeline):
    """`DietNeRFPipeline` that trains on as many rays as have a given number of samples in total.

    Args:
        config: see `DietNeRFPipelineConfig` and nerfstudio's `DynamicBatchPipelineConfig`.
    """

    def _rays_per_batch(self) -> int:
        """What is set, because the number that follows the samples along rays starts low."""
        return cast(VanillaDataManagerConfig, self.config.datamanager).train_num_rays_per_batch
