"""The main model: nerfacto with few-shot defaults and a choice of scene representations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.encodings import HashEncoding
from nerfstudio.models import nerfacto
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from dietnerf_ns.data.capture import Capture
from dietnerf_ns.fields.coarse_to_fine import level_weights
from dietnerf_ns.fields.encoded import EncodedField
from dietnerf_ns.fields.generated_planes import GeneratedTriplanes
from dietnerf_ns.fields.object_box import BoxCollider
from dietnerf_ns.fields.planes import MultiResolutionTriplanes, PlaneDensityField
from dietnerf_ns.fields.surroundings import GrowingSphereCollider, ReachSampler
from dietnerf_ns.models.agreement import Planes, agreed_background, agreed_planes, is_photos_background
from dietnerf_ns.models.base import FAINT, SemanticModel
from dietnerf_ns.models.empty_space import EmptySpaceSkipping
from dietnerf_ns.models.implementation import draw_tcnn_parameters, usable_implementation
from dietnerf_ns.models.members import AveragedMembers
from dietnerf_ns.models.nerfacto_settings import FLAGS, check_planes_in_order, check_settings, say_what_is_ignored
from dietnerf_ns.models.scene import BLENDER_PRESET, SceneSetup, bounded_scene, recognised_scene
from dietnerf_ns.utils.compat import replaced, steps_of_run
from dietnerf_ns.utils.errors import SettingError, flags_under
from dietnerf_ns.utils.saved_runs import MigratedConfig

MAX_PLANE_RESOLUTION = 512
"""When none is given."""
PROPOSAL_PLANE_RESOLUTION = 32
MIN_SIDE_OF_TWO_MEMBERS = 200
COARSE_TO_FINE_ON_PLANES = 1 / 3
NOT_GIVEN = (None, "auto")
DEFAULTS = {
    "near_plane": 0.05,
    "far_plane": 1000.0,
    "background_color": "last_sample",
    "disable_scene_contraction": False,
    "proposal_initial_sampler": "piecewise",
    "distortion_loss_mult": 0.002,
    "average_init_density": 0.01,
}
"""Of settings that are neither given nor determined by the data: nerfacto's, but for the density."""


@dataclass
class DietNeRFModelConfig(MigratedConfig, NerfactoModelConfig):
    """nerfacto for few photos with known poses."""

    _target: type = dataclasses.field(default_factory=lambda: DietNeRFModel)
    field: Literal["free-planes", "generated-planes", "hash"] = "free-planes"
    """Scene representation. free-planes: feature planes. generated-planes: feature planes that an untrained network
    outputs, a prior of its own that needs many more steps. hash: nerfacto's hash grid."""
    plane_resolution: int | None = None
    """Grid points along the side of the finest feature planes. When not given: the shorter side of the training images,
    at most 512."""
    plane_levels: int = 3
    """Number of feature plane resolutions, each half the next finer one."""
    plane_channels: int = 16
    """Features per resolution, in the field and in the proposal network."""
    plane_initial_scale: float = 0.02
    """Standard deviation of the features before training, also in the proposal network but not in generated planes. A
    low variance keeps smooth what no photo shows; nerfstudio's own planes have 0.1."""
    plane_smoothness: float = 1.0
    """Weight of the total variation of the feature planes; 0 turns it off."""
    coarse_to_fine: float | None = None
    """Part of the run over which the finer levels of the planes or the hash grid are enabled one after the other; 0
    enables all from the start. When not given: a third on planes, 0 on the hash grid, where it is harmful."""
    image_sample_factor: float | None = None
    """Number of samples along a ray of an image (evaluation, viewer, turntable) relative to a training ray. When not
    given: 0.75 for one object in front of a uniform background, where a grid of the density says where samples are
    needed, otherwise 1."""
    members: int | Literal["auto"] = 1
    """Number of independently initialised fields that are trained together and whose renders are averaged. Two take
    about one and a half times as long as one. auto: 2 for photos with at least 200 pixels along the shorter side if the
    camera optimizer is off, otherwise 1."""
    scene: Literal["auto", "object", "around", "front-facing", "inside-out"] = "auto"
    """What the cameras see. object: one object without surroundings; a box is fitted to the cameras and to the
    silhouettes in the photos, and the background is that of the photos. around: an object with its surroundings; a cube
    around what the cameras look at has most of the detail, and space beyond it is contracted. front-facing: normalised
    device coordinates and a near plane fitted to the cameras. inside-out: cameras that do not look at one place, in
    nerfacto's contraction of space. auto: front-facing if all viewing directions are within 60 degrees of each other;
    inside-out if the cameras do not look at one place; object if the photos' borders have one colour or are
    transparent; otherwise around. Ignored with disable-scene-contraction, which blender-data sets."""
    space_annealing: float = 1 / 3
    """Part of the run over which the sampled space of a scene `around` grows from its centre outwards, so that what
    all photos show is explained first; 0 samples all of space from the start. Semantic views are rendered once it has
    grown."""
    fit_box: bool = True
    """Reduce the scene's box to what the silhouettes allow, if the photos have a uniform background and the camera
    optimizer is off. With disable-scene-contraction, rays are sampled inside the box only; False samples as nerfacto
    does."""
    random_background: bool = True
    """Put another colour behind each training ray that passes the object by, in the render and in the photo, if the
    model renders the photos' transparent or uniform background. Against a constant background, fog of that colour
    looks like empty space."""
    near_plane: float | None = None  # type: ignore[assignment]
    """How far along the ray to start sampling. When not given: 0.05, or what the kind of data or scene needs."""
    far_plane: float | None = None  # type: ignore[assignment]
    """How far along the ray to stop sampling. When not given: 1000, or what the kind of data or scene needs."""
    background_color: Literal["auto", "random", "last_sample", "black", "white"] = "auto"  # type: ignore[assignment]
    """Colour behind the scene, and of transparent pixels. auto: that of the photos if it is uniform, white with
    blender-data, otherwise last_sample."""
    disable_scene_contraction: bool | None = None  # type: ignore[assignment]
    """Whether to disable scene contraction. When not given: True with blender-data, otherwise False."""
    proposal_initial_sampler: Literal["auto", "piecewise", "uniform"] = "auto"  # type: ignore[assignment]
    """Initial sampler of the proposal network. auto: uniform for one object; piecewise for scenes with surroundings, if
    the cameras look at one place at the scale of their distance from it."""
    distortion_loss_mult: float | None = None  # type: ignore[assignment]
    """Distortion loss multiplier. When not given: 0 if the cameras look at one object, otherwise 0.002."""
    average_init_density: float | None = None  # type: ignore[assignment]
    """Average initial density output from MLP. When not given: about 1 if the cameras look at one object,
    otherwise 0.01."""
    use_appearance_embedding: bool = False
    """Whether to use an appearance embedding."""
    camera_optimizer: CameraOptimizerConfig = dataclasses.field(
        default_factory=lambda: CameraOptimizerConfig(mode="off")
    )
    """Config of the camera optimizer to use"""

    def fitted_to(self, dataparser: DataParserConfig) -> DietNeRFModelConfig:
        """This configuration with what NeRF-Synthetic scenes (blender-data) need where nothing is given."""
        if not isinstance(dataparser, BlenderDataParserConfig):
            return self
        missing = self._not_given(BLENDER_PRESET)
        if missing:
            CONSOLE.print(f"blender-data: {', '.join(f'{name} {value}' for name, value in missing.items())}.")
        return replace(self, **missing)

    def completed(self, scene: SceneSetup) -> DietNeRFModelConfig:
        """This configuration with what the scene determines, or a default, where nothing is given."""
        return replace(self, **self._not_given(DEFAULTS | scene.settings))

    def _not_given(self, preset: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in preset.items() if getattr(self, name) in NOT_GIVEN}

    @classmethod
    def migrated(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings of version 0.1, which did not tell defaults from given values, and of 0.2, as they are now."""
        if "proposal_plane_resolution" in settings:
            unset = {name: getattr(cls, name) for name, value in DEFAULTS.items() if settings.get(name) == value}
            settings = {k: value for k, value in (settings | unset).items() if k != "proposal_plane_resolution"}
        if "space_annealing" not in settings and settings.get("scene") == "around":
            settings = settings | {"scene": "inside-out"}  # nerfacto's contraction, which this was until version 0.2
        if "random_background" not in settings:
            settings = settings | {"random_background": False}
        return settings


class DietNeRFMember(EmptySpaceSkipping, SemanticModel, NerfactoModel):
    """nerfacto with few-shot defaults.

    Args:
        config: see `DietNeRFModelConfig`; `NerfactoModelConfig` for the rest.
    """

    config: DietNeRFModelConfig
    can_restart = True
    faint = FAINT
    _has_all_levels = False
    """Whether training has enabled all levels. Those of a checkpoint may be disabled still."""

    def populate_modules(self) -> None:
        """Build nerfacto, then replace its field and proposal networks by those of the chosen scene representation.

        Raises:
            UserError: settings that cannot work.
        """
        with flags_under(FLAGS):
            self._populate_modules()

    def _populate_modules(self) -> None:
        check_settings(self.config)
        say_what_is_ignored(self.config)
        implementation = usable_implementation(self.config.implementation, self.kwargs.get("device", "cpu"))
        self._given_config = replace(self.config, implementation=implementation)
        scene = self._scene_setup()
        self.config = self._in_agreement(self._given_config.completed(scene), scene)
        check_planes_in_order(self.config)
        self._say_planes_of_unit(scene)
        if self.config.use_same_proposal_network:  # nerfacto asserts that there is one
            self.config.proposal_net_args_list = self.config.proposal_net_args_list[:1]
        super().populate_modules()
        # nerfacto samples from 0 when it evaluates; few photos leave the space in front of the near plane untrained.
        self.collider.reset_near_plane = False
        self._replace_field()
        if self.config.field != "hash":
            self._replace_proposal_networks()
        if scene.space is not None:
            for field_ in (self.field, *self.proposal_networks):
                field_.spatial_distortion = scene.space
        if scene.collider is not None:
            near, far = self.config.near_plane, self.config.far_plane
            assert near is not None and far is not None, "the configuration is complete"
            self.collider = scene.collider(near, far)
            if isinstance(self.collider, BoxCollider):  # what is in a fitted box has been seen from all sides
                self.collider.planes_cut_images = not scene.has_silhouettes or self._has_own_planes()
        if scene.reach is not None and self._given_config.proposal_initial_sampler in NOT_GIVEN:
            self.proposal_sampler.initial_sampler = ReachSampler(scene.reach, self.config.use_single_jitter)
        background = self._background(scene)
        if background is not None:
            self._set_background(background)
        self._varies_background = self.config.random_background and self._has_photos_background()
        self._mse_of_photos: Tensor | None = None
        draw_tcnn_parameters(self)

    @property
    def needs_background_rays(self) -> bool:
        """Whether rays of the background are compared in front of a random colour."""
        return self._varies_background

    @property
    def given_config(self) -> DietNeRFModelConfig:
        """The configuration before anything was derived from the scene, with an implementation that the device has."""
        return self._given_config

    @property
    def capture(self) -> Capture | None:
        """The training views, if a datamanager of this package made them."""
        return Capture.in_metadata(self.kwargs["metadata"])

    def _scene_setup(self) -> SceneSetup:
        capture, config = self.capture, self.config
        may_fit = config.fit_box and config.camera_optimizer.mode == "off"
        hull = capture.hull if capture is not None and may_fit else None
        if config.disable_scene_contraction:
            return bounded_scene(self.scene_box.aabb, capture, hull, fit_box=config.fit_box)
        if capture is None:
            return SceneSetup()
        background = capture.background if config.background_color in NOT_GIVEN else None
        return recognised_scene(config.scene, capture, hull=hull, background=background)

    def _in_agreement(self, config: DietNeRFModelConfig, scene: SceneSetup) -> DietNeRFModelConfig:
        """The complete configuration, with near and far planes between which the object lies."""
        capture, given = self.capture, cast(Planes, (config.near_plane, config.far_plane))
        if capture is None or not capture.photos_opened:
            return config
        planes = agreed_planes(given, scene, capture, is_blender_data=bool(config.disable_scene_contraction))
        density = cast(float, config.average_init_density)
        if density == BLENDER_PRESET["average_init_density"]:
            density = density * given[1] / planes[1]  # per unit of length
        return replace(config, near_plane=planes[0], far_plane=planes[1], average_init_density=density)

    def _say_planes_of_unit(self, scene: SceneSetup) -> None:
        known = self.capture is not None and self.capture.photos_opened
        if known and "far_plane" in scene.settings and self._given_config.far_plane in NOT_GIVEN:
            CONSOLE.print(
                f"Near plane {self.config.near_plane:.3g} and far plane {self.config.far_plane:.3g}, from the distance "
                "of the cameras: the scene has another unit of length.",
                soft_wrap=True,
            )

    def _has_own_planes(self) -> bool:
        given = self._given_config
        return any(
            getattr(given, plane) not in (*NOT_GIVEN, BLENDER_PRESET[plane]) for plane in ("near_plane", "far_plane")
        )

    def _set_background(self, color: Float[Tensor, "3"]) -> None:
        """As a buffer, the colour goes to the device with the model, and not anew for each batch of rays."""
        del self.renderer_rgb.background_color
        self.renderer_rgb.register_buffer("background_color", color, persistent=False)

    def _background(self, scene: SceneSetup) -> Float[Tensor, "3"] | None:
        """RGB in [0, 1] in place of the background colour that is set, or None to leave that."""
        if scene.background is not None or self.capture is None or not scene.is_bounded:
            return scene.background
        is_given = self._given_config.background_color not in NOT_GIVEN
        return agreed_background(self.config.background_color, self.capture, is_given=is_given)

    def _has_photos_background(self) -> bool:
        """Whether the model renders the colour that the photos have behind the object."""
        color = self.renderer_rgb.background_color
        if self._background_kind != "colour" or self.capture is None or self.capture.background is None:
            return False
        return is_photos_background(color, self.capture)

    def _replace_field(self) -> None:
        on_hash = self.config.field == "hash"
        self.field = EncodedField(
            self.scene_box.aabb,
            self.num_train_data,
            encoding=self._hash_grid() if on_hash else self._new_planes(),
            num_levels=self.config.num_levels if on_hash else self.config.plane_levels,
            position_gradients=self.config.predict_normals or self.config.camera_optimizer.mode != "off",
            hidden_dim=self.config.hidden_dim,
            hidden_dim_color=self.config.hidden_dim_color,
            appearance_embedding_dim=self.config.appearance_embed_dim if self.config.use_appearance_embedding else 0,
            use_average_appearance_embedding=self.config.use_average_appearance_embedding,
            use_pred_normals=self.config.predict_normals,
            **self._shared_by_fields(),
        )

    def _shared_by_fields(self) -> dict[str, Any]:
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

    def _new_planes(self) -> MultiResolutionTriplanes:
        finest, levels, channels = self._finest_resolution(), self.config.plane_levels, self.config.plane_channels
        if self.config.field == "generated-planes":
            return GeneratedTriplanes(finest, levels, channels)
        resolutions = [max(2, finest // 2**level) for level in reversed(range(levels))]
        return MultiResolutionTriplanes(resolutions, channels, self.config.plane_initial_scale)

    def _finest_resolution(self) -> int:
        if self.config.plane_resolution is not None:
            return self.config.plane_resolution
        if self.capture is None:
            raise SettingError("plane_resolution", None, "must be given, because the training images are not known.")
        return min(self.capture.shorter_side, MAX_PLANE_RESOLUTION)

    def _replace_proposal_networks(self) -> None:
        if self.config.predict_normals:
            raise SettingError("predict_normals", True, "needs --pipeline.model.field hash.")
        self.proposal_networks = nn.ModuleList(
            PlaneDensityField(
                self.scene_box.aabb,
                resolution=PROPOSAL_PLANE_RESOLUTION,
                channels=self.config.plane_channels,
                initial_scale=self.config.plane_initial_scale,
                **self._shared_by_fields(),
            )
            for _ in self.proposal_networks
        )
        rounds_per_network = self.config.num_proposal_iterations // len(self.proposal_networks)
        self.density_fns = [network.density_fn for network in self.proposal_networks] * rounds_per_network

    def _planes(self) -> MultiResolutionTriplanes | None:
        encoding = self.field.encoding
        return encoding if isinstance(encoding, MultiResolutionTriplanes) else None

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """nerfacto's groups, and those of planes with an optimizer of their own."""
        groups, planes = super().get_param_groups(), self._planes()
        own_groups = {} if planes is None else planes.optimizer_groups()
        own = {id(parameter) for parameters in own_groups.values() for parameter in parameters}
        groups["fields"] = [parameter for parameter in groups["fields"] if id(parameter) not in own]
        return groups | own_groups

    def gradient_inputs(self) -> list[Tensor]:
        """The trainable parameters, or what the planes name in place of theirs."""
        parameters, planes = super().gradient_inputs(), self._planes()
        return parameters if planes is None else planes.gradient_inputs(parameters)

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """nerfacto's callbacks; finer levels and space are enabled before a step, planes are told when it has ended."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        for callback in callbacks:
            callback.func = self._counting_from_first_step(callback.func)
        self._complete_what_has_no_schedule()
        trainer, planes = training_callback_attributes.trainer, self._planes()
        if trainer is not None:
            schedules = ((self._coarse_to_fine(), self._enable_levels), (self._space_annealing(), self._grow_space))
            before_step = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
            if (grown := self.whole_scene_from(steps_of_run(trainer))) > 0:
                CONSOLE.print(f"Space: grows until step {grown}; semantic views wait until then.")
            callbacks += [
                TrainingCallback(before_step, update, 1, args=[part_of_run, steps_of_run(trainer)])
                for part_of_run, update in schedules
                if part_of_run > 0
            ]
        if planes is not None:
            after_step = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
            callbacks.append(TrainingCallback(after_step, lambda step: planes.end_step(), 1))
        return callbacks

    def _complete_what_has_no_schedule(self) -> None:
        """Enable all levels and all of space where no schedule does; a checkpoint may be from the middle of one."""
        if self._coarse_to_fine() == 0:
            self.field.level_mask.weights.fill_(1.0)
        if self._space_annealing() == 0 and isinstance(self.collider, GrowingSphereCollider):
            self.collider.grow(1.0)

    def _counting_from_first_step(self, func: Callable[..., None]) -> Callable[..., None]:
        """Call nerfacto's schedules of the proposal networks with the steps since the present initialisation."""
        return lambda step: func(step=step - self.first_step)

    def whole_scene_from(self, total_steps: int) -> int:
        """Step from which the sampled space of a scene with surroundings has grown.

        Args:
            total_steps: number of steps of the run.
        """
        annealing = self._space_annealing()
        return self.first_step + math.ceil(self._length(annealing, total_steps)) if annealing > 0 else 0

    def _coarse_to_fine(self) -> float:
        if self.config.coarse_to_fine is not None:
            return self.config.coarse_to_fine
        return 0 if self._planes() is None else COARSE_TO_FINE_ON_PLANES

    def _space_annealing(self) -> float:
        return self.config.space_annealing if isinstance(self.collider, GrowingSphereCollider) else 0

    def _progress(self, step: int, part_of_run: float, total_steps: int) -> float:
        return (step - self.first_step) / self._length(part_of_run, total_steps)

    def _length(self, part_of_run: float, total_steps: int) -> float:
        """Steps of a schedule over a part of the run, which an attempt after a restart shortens if it would not end."""
        length = part_of_run * total_steps
        return max(min(length, total_steps - 1 - self.first_step), 1) if self.first_step > 0 else length

    def _enable_levels(self, part_of_run: float, total_steps: int, step: int) -> None:
        if self._has_all_levels:  # each copy makes a GPU wait
            return
        weights, progress = self.field.level_mask.weights, self._progress(step, part_of_run, total_steps)
        weights.copy_(level_weights(progress, len(weights)))
        self._has_all_levels = progress >= 1

    def begin_attempt(self, step: int) -> None:
        """Schedules that depend on how long the present initialisation has trained start at this step."""
        super().begin_attempt(step)
        self._has_all_levels = False

    def _grow_space(self, part_of_run: float, total_steps: int, step: int) -> None:
        assert isinstance(self.collider, GrowingSphereCollider)
        self.collider.grow(self._progress(step, part_of_run, total_steps))

    def get_metrics_dict(self, outputs, batch):
        """nerfacto's metrics; the distortion loss only if it counts.

        Args:
            outputs: of the rays, as from `get_outputs`.
            batch: `image`, the photos' colours of the same rays, [num_rays, 3 or 4] in [0, 1].
        """
        if self.config.distortion_loss_mult != 0:
            return super().get_metrics_dict(outputs, batch)
        with replaced(nerfacto, "distortion_loss", lambda *_: torch.zeros((), device=self.device)):
            return super().get_metrics_dict(outputs, batch)

    def get_loss_dict(self, outputs, batch, metrics_dict=None):
        """nerfacto's losses and the smoothness of the planes, already weighted.

        Args:
            outputs: of the rays, as from `get_outputs`: `rgb` [num_rays, 3] in [0, 1] and others.
            batch: `image`, the photos' colours of the same rays, [num_rays, 3 or 4] in [0, 1]; for some data
                `is_background`, [num_rays, 1], True where a photo surely shows the background.
            metrics_dict: what `get_metrics_dict` computed for them.
        """
        if self.training and self.needs_background_rays and "is_background" in batch:
            outputs, batch = self._before_random_background(outputs, batch)
        losses, planes = super().get_loss_dict(outputs, batch, metrics_dict), self._planes()
        if self.training and planes is not None and self.config.plane_smoothness > 0:
            losses["plane_smoothness_loss"] = self.config.plane_smoothness * planes.total_variation()
        return losses

    def _before_random_background(
        self, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Render and photo of the background's rays in front of a random colour. The error before is kept."""
        photo, is_background = (batch[name].to(self.device) for name in ("image", "is_background"))
        photo = self.blend_background(photo)
        self._mse_of_photos = mse_loss(outputs["rgb"].detach(), photo)
        change = is_background * (torch.rand_like(photo) - self.background.to(photo))
        render = outputs["rgb"] + change * (1 - outputs["accumulation"])
        return outputs | {"rgb": render}, batch | {"image": photo + change}

    def photometric_mse(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Mean squared error of the last step's training rays, RGB in [0, 1], in front of the photos' background.

        Args:
            losses: what `get_loss_dict` returned; on another background if that varies.
        """
        return super().photometric_mse(losses) if self._mse_of_photos is None else self._mse_of_photos

    def get_extra_state(self) -> dict[str, Any]:
        """What rendering needs of the capture, and the progress of the proposal sampler's schedule.

        Rendering opens no photos, and a resumed run continues exactly as it would have.
        """
        background = self.renderer_rgb.background_color
        return {
            "capture": None if self.capture is None else self.capture.state(),
            "steps_since_proposal_update": self.proposal_sampler._steps_since_update,
            "step": self.proposal_sampler._step,
            "planes": (self.collider.near_plane, self.collider.far_plane),
            "planes_cut_images": getattr(self.collider, "planes_cut_images", True),
            "average_init_density": self.field.average_init_density,
            "background": background.tolist() if isinstance(background, Tensor) else None,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` saved."""
        self.proposal_sampler._steps_since_update = state["steps_since_proposal_update"]
        self.proposal_sampler._step = state["step"]
        opened = self.capture is not None and self.capture.photos_opened
        if "planes" in state and not (opened and self._has_own_planes()):  # versions up to 0.2 lack them
            self.collider.near_plane, self.collider.far_plane = state["planes"]
        if "average_init_density" in state:  # a factor on what the weights say, whatever the photos are now
            for network in (self.field, *self.proposal_networks):
                network.average_init_density = state["average_init_density"]
        if opened:
            return
        if isinstance(self.collider, BoxCollider):
            self.collider.planes_cut_images = state.get("planes_cut_images", True)
        if state.get("background") is not None:
            self._set_background(torch.tensor(state["background"], device=self.device))


class DietNeRFModel(AveragedMembers, DietNeRFMember):
    """One `DietNeRFMember`, or the mean of several.

    Args:
        config: see `DietNeRFModelConfig`; `NerfactoModelConfig` for the rest.
    """

    def populate_modules(self) -> None:
        """Build this member, and the others like it.

        Raises:
            UserError: settings that cannot work.
        """
        super().populate_modules()
        self.add_members(self._number_of_members())
        if len(self.other_members) > 0 and self._optimizes_cameras:
            CONSOLE.print(
                f"[yellow]{FLAGS}members {self.config.members}: each member has camera poses of its own, so that the "
                "mean of their images is blurred. Without the camera optimizer they share one pose.[/yellow]",
                soft_wrap=True,
            )

    @property
    def _optimizes_cameras(self) -> bool:
        return self.config.camera_optimizer.mode != "off"

    def _number_of_members(self) -> int:
        if self.config.members != "auto":
            return self.config.members
        if self._optimizes_cameras:
            return 1
        is_large = self.capture is not None and self.capture.shorter_side >= MIN_SIDE_OF_TWO_MEMBERS
        return 2 if is_large else 1
