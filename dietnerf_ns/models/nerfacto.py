"""The main model: nerfacto with few-shot defaults and the field it was asked for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.encodings import HashEncoding
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from dietnerf_ns.data.datamanager import ONE_BACKGROUND, TRAIN_CAMERAS
from dietnerf_ns.fields.coarse_to_fine import level_weights
from dietnerf_ns.fields.encoded import EncodedField
from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox
from dietnerf_ns.fields.planes import GeneratedTriplanes, MultiResolutionTriplanes, PlaneDensityField
from dietnerf_ns.models.implementation import draw_tcnn_parameters, usable_implementation
from dietnerf_ns.models.metrics import LazyLPIPS, without_missing
from dietnerf_ns.models.scene import BLENDER_PRESET, Photos, Scene, bounded_scene, recognised_scene
from dietnerf_ns.utils.compat import lpips_replaced_by, steps_of_run
from dietnerf_ns.utils.errors import UserError, check_limits

MAX_PLANE_RESOLUTION = 512
COARSE_TO_FINE_ON_PLANES = 1 / 3


@dataclass
class DietNeRFModelConfig(NerfactoModelConfig):
    """nerfacto for few photos with known poses."""

    _target: type = dataclasses.field(default_factory=lambda: DietNeRFModel)
    field: Literal["free-planes", "generated-planes", "hash"] = "free-planes"
    """What holds the scene: feature planes; feature planes that an untrained network puts out, a prior of its own that
    needs many more steps; or nerfacto's hash grid."""
    plane_resolution: int | None = None
    """Cells along the side of the finest feature planes; when not given the shorter side of the training images, at
    most 512."""
    plane_levels: int = 3
    """Sets of feature planes, each with half the resolution of the next finer one."""
    plane_channels: int = 16
    """Features per set of planes, of the field and of the proposal network."""
    plane_initial_scale: float = 0.02
    """Standard deviation of the features before training, those of the proposal network too, but not of generated
    planes: what no photo shows stays as smooth as that. nerfstudio's own planes have 0.1."""
    plane_smoothness: float = 1.0
    """Weight of the total variation of the feature planes; 0 turns it off."""
    coarse_to_fine: float | None = None
    """Part of the run over which finer levels of the planes or of the hash grid are let in one after the other; 0 lets
    all in from the start. When not given a third on planes, and 0 on the hash grid, where it does harm."""
    proposal_plane_resolution: int = 32
    """Cells along the side of the proposal network's feature planes."""
    scene: Literal["auto", "object", "around", "front-facing"] = "auto"
    """What the cameras see. object: one thing and nothing around it; a box is fitted to the cameras and to the thing's
    outlines in the photos, and the background is that of the photos. around: everything, in nerfacto's contraction of
    space. front-facing: what lies one way; normalised device coordinates and a near plane fitted to the cameras. auto:
    front-facing if no two cameras' viewing directions are 60 degrees or more apart; object if they surround something
    and the photos' borders all have one colour or are transparent; else around. Without effect under
    disable-scene-contraction."""
    fit_box: bool = True
    """Make the box that the scene is in as small as the thing's outlines allow, if the photos show it on one
    background, and unless the camera optimizer has yet to correct their poses. Under disable-scene-contraction rays are
    sampled in the box alone; with False as nerfacto does."""
    average_init_density: float = 0.01
    """Average initial density output from MLP."""
    use_appearance_embedding: bool = False
    """Whether to use an appearance embedding."""
    camera_optimizer: CameraOptimizerConfig = dataclasses.field(
        default_factory=lambda: CameraOptimizerConfig(mode="off")
    )
    """Config of the camera optimizer to use"""

    def fitted_to(self, dataparser: DataParserConfig) -> DietNeRFModelConfig:
        """This configuration with the settings that a kind of data needs; settings changed from the default are kept.

        NeRF-Synthetic scenes (blender-data) need nine flags of nerfacto; those not already the default here are set.
        """
        if not isinstance(dataparser, BlenderDataParserConfig):
            return self
        preset = self._unchanged(BLENDER_PRESET)
        CONSOLE.print(f"blender-data: {', '.join(f'{name} {value}' for name, value in preset.items())}.")
        return replace(self, **preset)

    def with_preset(self, preset: dict[str, Any]) -> DietNeRFModelConfig:
        """This configuration with a preset's settings; settings changed from the default are kept."""
        return replace(self, **self._unchanged(preset))

    def _unchanged(self, preset: dict[str, Any]) -> dict[str, Any]:
        defaults = DietNeRFModelConfig()
        return {k: v for k, v in preset.items() if getattr(self, k) == getattr(defaults, k)}


class DietNeRFModel(NerfactoModel):
    """nerfacto with few-shot defaults.

    Args:
        config: see `DietNeRFModelConfig`; `NerfactoModelConfig` for the rest.
    """

    config: DietNeRFModelConfig
    semantic_outputs = ("rgb",)
    photometric_loss = "rgb_loss"
    first_step = 0
    """Where the current initialisation started to train; set by the pipeline."""

    def populate_modules(self) -> None:
        """Build nerfacto, then put in the field that was asked for.

        Raises:
            UserError: settings that cannot work.
        """
        _check(self.config)
        implementation = usable_implementation(self.config.implementation, self.kwargs.get("device", "cpu"))
        self.config = replace(self.config, implementation=implementation)
        scene = self._scene()
        self.config = self.config.with_preset(scene.settings)
        with lpips_replaced_by(LazyLPIPS):
            super().populate_modules()
        # nerfacto samples from 0 when it evaluates; few photos leave the space before the near plane untrained.
        self.collider.reset_near_plane = False
        self._put_in_field()
        if self.config.field != "hash":
            self._put_in_plane_proposals()
        if scene.space is not None:
            for field_ in (self.field, *self.proposal_networks):
                field_.spatial_distortion = scene.space
        if isinstance(scene.space, ObjectBox):
            self.collider = BoxCollider(scene.space, self.config.near_plane, self.config.far_plane)
        if scene.background is not None:
            self.renderer_rgb.background_color = scene.background
        draw_tcnn_parameters(self)

    def _scene(self) -> Scene:
        photos = Photos.described_by(self.kwargs["metadata"])
        if not self.config.fit_box or self.config.camera_optimizer.mode != "off":
            photos = replace(photos, hull=None)
        if self.config.disable_scene_contraction:
            return bounded_scene(self.scene_box.aabb, photos) if self.config.fit_box else Scene()
        return recognised_scene(self.config.scene, photos, background_color=self.config.background_color)

    def _put_in_field(self) -> None:
        on_hash = self.config.field == "hash"
        self.field = EncodedField(
            self.scene_box.aabb,
            self.num_train_data,
            encoding=self._hash_grid() if on_hash else self._planes(),
            num_levels=self.config.num_levels if on_hash else self.config.plane_levels,
            position_gradients=self.config.predict_normals or self.config.camera_optimizer.mode != "off",
            hidden_dim=self.config.hidden_dim,
            hidden_dim_color=self.config.hidden_dim_color,
            appearance_embedding_dim=self.config.appearance_embed_dim if self.config.use_appearance_embedding else 0,
            use_average_appearance_embedding=self.config.use_average_appearance_embedding,
            use_pred_normals=self.config.predict_normals,
            **self._shared_by_fields(),
        )

    def _shared_by_fields(self) -> dict:
        return {
            "spatial_distortion": self.field.spatial_distortion,
            "average_init_density": self.config.average_init_density,
            "implementation": self.config.implementation,
        }

    def _hash_grid(self) -> HashEncoding:
        return HashEncoding(
            num_levels=self.config.num_levels,
            min_res=self.config.base_res,
            max_res=self.config.max_res,
            log2_hashmap_size=self.config.log2_hashmap_size,
            features_per_level=self.config.features_per_level,
            implementation=self.config.implementation,
        )

    def _planes(self) -> MultiResolutionTriplanes:
        finest, levels, channels = self.config.plane_resolution, self.config.plane_levels, self.config.plane_channels
        if finest is None:
            cameras = self.kwargs["metadata"][TRAIN_CAMERAS]
            finest = min(int(torch.minimum(cameras.width, cameras.height).min()), MAX_PLANE_RESOLUTION)
        if self.config.field == "generated-planes":
            return GeneratedTriplanes(finest, levels, channels)
        resolutions = [max(2, finest // 2**level) for level in reversed(range(levels))]
        return MultiResolutionTriplanes(resolutions, channels, self.config.plane_initial_scale)

    def _put_in_plane_proposals(self) -> None:
        if self.config.predict_normals:
            raise UserError("--pipeline.model.predict-normals True needs --pipeline.model.field hash.")
        self.proposal_networks = nn.ModuleList(
            PlaneDensityField(
                self.scene_box.aabb,
                resolution=self.config.proposal_plane_resolution,
                channels=self.config.plane_channels,
                initial_scale=self.config.plane_initial_scale,
                **self._shared_by_fields(),
            )
            for _ in self.proposal_networks
        )
        rounds_per_network = self.config.num_proposal_iterations // len(self.proposal_networks)
        self.density_fns = [network.density_fn for network in self.proposal_networks] * rounds_per_network

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """nerfacto's groups; the network that generates planes has a learning rate of its own."""
        groups = super().get_param_groups()
        if self.config.field == "generated-planes":
            groups["plane_generator"] = list(self.field.encoding.generator.parameters())
            own = {id(parameter) for parameter in groups["plane_generator"]}
            groups["fields"] = [parameter for parameter in groups["fields"] if id(parameter) not in own]
        return groups

    def gradient_inputs(self) -> list[Tensor]:
        """What a step's gradients are taken of: the parameters, and in place of a generator's the planes it put out."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.config.field != "generated-planes":
            return parameters
        generators = {id(parameter) for parameter in self.field.encoding.generator.parameters()}
        return [*self.field.encoding.planes(), *(p for p in parameters if id(p) not in generators)]

    @contextlib.contextmanager
    def fewer_samples(self, fraction: float) -> Iterator[None]:
        """Render with a fraction of the samples along a ray, of proposal networks and field, inside."""
        sampler = self.proposal_sampler
        proposals, samples = sampler.num_proposal_samples_per_ray, sampler.num_nerf_samples_per_ray
        sampler.num_proposal_samples_per_ray = tuple(max(1, round(fraction * count)) for count in proposals)
        sampler.num_nerf_samples_per_ray = max(1, round(fraction * samples))
        try:
            yield
        finally:
            sampler.num_proposal_samples_per_ray, sampler.num_nerf_samples_per_ray = proposals, samples

    def get_training_callbacks(self, training_callback_attributes: TrainingCallbackAttributes):
        """nerfacto's callbacks; finer levels are let in, and generated planes are out of date after every step."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        trainer = training_callback_attributes.trainer
        part_of_run = self.config.coarse_to_fine
        if part_of_run is None:
            part_of_run = 0 if self.config.field == "hash" else COARSE_TO_FINE_ON_PLANES
        if part_of_run > 0 and trainer is not None:
            steps = part_of_run * steps_of_run(trainer)
            before_step = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
            callbacks.append(TrainingCallback(before_step, self._let_in_levels, 1, args=[steps]))
        if self.config.field == "generated-planes":
            after_step = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
            callbacks.append(TrainingCallback(after_step, lambda step: self.field.encoding.forget(), 1))
        return callbacks

    def _let_in_levels(self, steps: float, step: int) -> None:
        weights = self.field.level_mask.weights
        weights.copy_(level_weights((step - self.first_step) / steps, len(weights)))

    def get_loss_dict(self, outputs, batch, metrics_dict=None):
        """nerfacto's losses, and the priors that are on, already weighted.

        Args:
            outputs: of the rays, as from `get_outputs`: `rgb` [num_rays, 3] in [0, 1] and the rest.
            batch: `image`, the photos' colours of the same rays [num_rays, 3 or 4].
            metrics_dict: what `get_metrics_dict` computed for them.
        """
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        if self.training and self.config.field != "hash" and self.config.plane_smoothness > 0:
            losses["plane_smoothness_loss"] = self.config.plane_smoothness * self.field.encoding.total_variation()
        return losses

    def get_image_metrics_and_images(self, outputs, batch):
        """nerfacto's metrics and images, without LPIPS where it cannot be computed.

        Args:
            outputs: of a camera's pixels: `rgb` [height, width, 3] in [0, 1] and the rest.
            batch: `image`, the photo [height, width, 3 or 4].
        """
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        return without_missing(metrics, self.lpips), images

    def get_extra_state(self) -> dict:
        """The photos' background, and how far the proposal sampler's schedule has come.

        A resumed run goes on exactly as it would have, and rendering needs no photos.
        """
        background = self.kwargs["metadata"].get(ONE_BACKGROUND)
        return {
            ONE_BACKGROUND: None if background is None else background.tolist(),
            "steps_since_proposal_update": self.proposal_sampler._steps_since_update,
            "step": self.proposal_sampler._step,
        }

    def set_extra_state(self, state: dict) -> None:
        """Restore the schedule that `get_extra_state` saved."""
        self.proposal_sampler._steps_since_update = state["steps_since_proposal_update"]
        self.proposal_sampler._step = state["step"]


def _check(config: DietNeRFModelConfig) -> None:
    cells = "at least 2 cells"
    limits = {
        "plane_resolution": (config.plane_resolution is None or config.plane_resolution >= 2, cells),
        "proposal_plane_resolution": (config.proposal_plane_resolution >= 2, cells),
        "plane_levels": (config.plane_levels >= 1, "at least 1"),
        "plane_channels": (config.plane_channels >= 1, "at least 1"),
        "plane_initial_scale": (config.plane_initial_scale >= 0, "at least 0"),
        "plane_smoothness": (config.plane_smoothness >= 0, "at least 0"),
        "coarse_to_fine": (config.coarse_to_fine is None or config.coarse_to_fine >= 0, "at least 0"),
    }
    check_limits(config, limits, prefix="pipeline.model.")
