"""The recipe of one training step: photometric loss; is a semantic view due?; render it; compare it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.amp import GradScaler

from dietnerf_ns.data.datamanager import HOW_TO_NAME_EVAL_IMAGES, ONE_BACKGROUND, FewShotDataManagerConfig
from dietnerf_ns.models.implementation import implementation_of
from dietnerf_ns.models.metrics import left_out
from dietnerf_ns.models.nerfacto import DietNeRFModel, DietNeRFModelConfig
from dietnerf_ns.models.vanilla import DietVanillaModel
from dietnerf_ns.semantic.consistency import SemanticConfig, SemanticConsistency
from dietnerf_ns.semantic.gradient_limit import add_gradients, gradients_of, limit_norm, with_gradients
from dietnerf_ns.training.collapse import CollapseDetector, photo_variance
from dietnerf_ns.utils.compat import steps_of_run
from dietnerf_ns.utils.errors import UserError, check_limits
from dietnerf_ns.utils.malloc import keep_freed_memory
from dietnerf_ns.utils.seeding import seed_everything
from dietnerf_ns.viewer.image_log import SemanticImageLog
from dietnerf_ns.viewer.panel import ViewerPanel
from dietnerf_ns.viewer.visualization import SemanticVisualization

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import TrainerConfig


@dataclass
class DietNeRFPipelineConfig(VanillaPipelineConfig):
    """A model trained on few views with the semantic consistency loss on top."""

    _target: type = field(default_factory=lambda: DietNeRFPipeline)
    datamanager: FewShotDataManagerConfig = field(default_factory=FewShotDataManagerConfig)
    """specifies the datamanager config"""
    model: ModelConfig = field(default_factory=DietNeRFModelConfig)
    """specifies the model config"""
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    """The semantic consistency loss."""
    max_restarts: int = 2
    """How often a run whose training collapses early starts again from a new initialisation; 0 turns that off."""


class DietNeRFPipeline(VanillaPipeline):
    """nerfstudio's pipeline plus, every few steps, a view that nobody photographed.

    Args:
        config: data, model and semantic loss.
        device: training device.
        world_size: number of processes; only 1 is supported.
        grad_scaler: the trainer's, which half precision needs.

    Raises:
        UserError: more than one process, or settings that cannot work.
    """

    config: DietNeRFPipelineConfig

    def __init__(
        self,
        config: DietNeRFPipelineConfig,
        device: str,
        world_size: int = 1,
        grad_scaler: GradScaler | None = None,
        **kwargs,
    ):
        if world_size > 1:
            raise UserError("dietnerf trains on one device: use --machine.num-devices 1 --machine.num-machines 1.")
        limits = {"max_restarts": (config.max_restarts >= 0, "at least 0")}
        check_limits(config, limits, prefix="pipeline.")
        if torch.device(device).type == "cpu":
            keep_freed_memory()
        if isinstance(config.model, DietNeRFModelConfig):
            config = replace(config, model=config.model.fitted_to(config.datamanager.dataparser))
        super().__init__(config, device, world_size=world_size, grad_scaler=grad_scaler, **kwargs)
        rays_per_batch = config.datamanager.train_num_rays_per_batch
        self.semantic = SemanticConsistency(config.semantic, device, rays_per_batch=rays_per_batch)
        self.dietnerf = ViewerPanel(self.semantic, self.datamanager.train_dataset, training=self.test_mode == "val")
        self.collapse_detector = CollapseDetector()
        self._seed = 0
        self._grad_scaler = grad_scaler

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Called once before training: the encoder and the photos' embeddings are made ready here."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        trainer = training_callback_attributes.trainer
        if trainer is None:
            return callbacks
        self._seed = trainer.config.machine.seed
        total_steps = steps_of_run(trainer)
        photos, blend = self.datamanager.train_dataset, self.model.renderer_rgb.blend_background
        self.semantic.prepare(photos, blend=blend, total_steps=total_steps, seed=self._seed)
        if self.config.max_restarts > 0:
            after_step = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
            arguments = {
                "optimizers": trainer.optimizers,
                "total_steps": total_steps,
                "photo_variance": photo_variance(photos, blend, self.datamanager.train_pixel_sampler),
            }
            callbacks.append(TrainingCallback(after_step, self._restart_if_collapsed, 1, kwargs=arguments))
        return callbacks + self._callbacks_to_show(trainer.config, SemanticVisualization(photos, blend))

    def _callbacks_to_show(self, trainer: TrainerConfig, pictures: SemanticVisualization) -> list[TrainingCallback]:
        """Semantic steps in the viewer and in the event writers, as far as there are any."""
        after_step, callbacks = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION], []
        if self.dietnerf.in_viewer:
            folder = self.dietnerf.semantic_consistency
            folder.start(pictures)
            callbacks.append(TrainingCallback(after_step, self._update_panel, 1))
            callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], folder.end))
        writes = trainer.is_tensorboard_enabled() or trainer.is_wandb_enabled() or trainer.is_comet_enabled()
        if writes and self.semantic.encoder is not None:
            callbacks.append(TrainingCallback(after_step, SemanticImageLog(self.semantic, pictures).after_step, 1))
        return callbacks

    def _update_panel(self, step: int) -> None:
        self.dietnerf.semantic_consistency.after_step(step, mse=self._fit_to_photos["mse"])

    def _restart_if_collapsed(self, step: int, *, optimizers: Optimizers, **known: float) -> None:
        detector, limit = self.collapse_detector, self.config.max_restarts
        collapse = detector.update(step, **self._fit_to_photos, **known)
        if collapse is None:
            return
        if detector.restarts == limit:
            CONSOLE.print(f"[bold red]Training has collapsed again at step {step}: {collapse}. It goes on as it is.")
            detector.given_up = True
            return
        detector.restart(step + 1)
        CONSOLE.print(
            f"[bold yellow]Training has collapsed at step {step}: {collapse}. "
            f"Restart {detector.restarts} of {limit} from a new initialisation."
        )
        self.model.load_state_dict(self._rebuild_model().state_dict())
        for optimizer in optimizers.optimizers.values():
            optimizer.state.clear()
        self.model.first_step = detector.first_step

    def _rebuild_model(self) -> DietNeRFModel | DietVanillaModel:
        """A model like this one that has not been trained."""
        model = self.model
        return model.config.setup(scene_box=model.scene_box, num_train_data=model.num_train_data, **model.kwargs)

    def get_extra_state(self) -> dict[str, int | float]:
        """What the collapse detector has seen, so that a resumed run goes on exactly as it would have."""
        return self.collapse_detector.state()

    def set_extra_state(self, state: dict[str, int | float]) -> None:
        """Restore what `get_extra_state` saved."""
        self.collapse_detector = CollapseDetector(**state)
        self.model.first_step = self.collapse_detector.first_step

    def get_train_loss_dict(self, step: int):
        """One training step's losses, already weighted; nerfstudio sums them."""
        seed_everything(self._seed, step)
        self.datamanager.train_pixel_sampler.step = step - self.collapse_detector.first_step
        outputs, losses, metrics = super().get_train_loss_dict(step)
        self._fit_to_photos = {
            "mse": losses[self.model.photometric_loss].detach(),
            "opacity": outputs["accumulation"].detach().mean(),
        }
        if self.semantic.is_due(step):
            losses = self._with_semantic_loss(losses, step)
        # Between semantic steps the last values again, so that the logged curves have no gaps.
        if self.semantic.is_active(step) and self.semantic.last is not None:
            metrics["semantic_loss"] = self.semantic.last.loss
            metrics["semantic_similarity"] = self.semantic.last.similarity
        return outputs, losses, metrics

    def _with_semantic_loss(self, losses: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """All losses of a semantic step: their values, and on the semantic one the gradient of them all.

        Gradients are taken here, first the photometric and then the semantic: each loss's activations are freed before
        the other's are made, and the one can be limited by the other.
        """
        tensors = self.model.gradient_inputs()
        loss_scale = self._grad_scaler.get_scale() if self._grad_scaler is not None else 1.0
        photometric = gradients_of(sum(losses.values()), tensors, loss_scale=loss_scale)
        semantic_loss = self.semantic.loss(self.model, step)
        semantic = gradients_of(semantic_loss, tensors, loss_scale=loss_scale)
        semantic = limit_norm(semantic, photometric, ratio=self.config.semantic.max_gradient_ratio)
        values = {name: loss.detach() for name, loss in losses.items()}
        total = with_gradients(semantic_loss.detach(), add_gradients(photometric, semantic), tensors)
        return values | {"semantic_loss": total}

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict:
        """Mean metrics over the evaluation images; for ns-eval also which metrics were left out and why."""
        if not self.datamanager.has_eval_images:
            raise UserError(f"There are no evaluation images, every photo is trained on. {HOW_TO_NAME_EVAL_IMAGES}")
        metrics = super().get_average_eval_image_metrics(step, output_path, get_std)
        if step is not None:  # during training the metrics go to writers that take numbers only
            return metrics
        missing = left_out(self.model.lpips)
        CONSOLE.print(
            f"PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}; left out: {', '.join(missing) or 'none'}."
        )
        return metrics | {"left_out": missing}

    def load_pipeline(self, loaded_state: dict, step: int) -> None:
        """Load a checkpoint; nerfstudio itself goes on in silence when parts of the model are not in it.

        Raises:
            UserError: the checkpoint is of another model.
        """
        if self.test_mode != "val" and isinstance(self.model, DietNeRFModel):
            self._fit_model_to(loaded_state)
        missing = self.state_dict().keys() - {name.removeprefix("module.") for name in loaded_state}
        if missing:
            raise UserError(
                f"The checkpoint does not fit this model: it lacks {len(missing)} parts, as {sorted(missing)[0]}. "
                "Was it trained with other settings, or, with tinycudann, on another machine? "
                "--pipeline.model.implementation torch trains what every machine can load."
            )
        super().load_pipeline(loaded_state, step)

    def _fit_model_to(self, loaded_state: dict) -> None:
        """Build the model again if the checkpoint is of another one, as far as a model follows from the machine.

        Rendering opens no photos: the background that they have in common comes with the checkpoint. And what was
        trained without tinycudann is rendered without it.
        """
        config, metadata = self.model.config, self.datamanager.train_dataset.metadata
        background = loaded_state.get("_model._extra_state", {}).get(ONE_BACKGROUND)
        recognise = self.test_mode == "inference" and background is not None and not config.disable_scene_contraction
        if recognise:
            metadata[ONE_BACKGROUND] = torch.tensor(background)
        without_tcnn = config.implementation == "tcnn" and implementation_of(loaded_state) == "torch"
        if without_tcnn:
            self.model.config = replace(config, implementation="torch")
        if recognise or without_tcnn:
            self._model = self._rebuild_model().to(self.device).train(self.training)
