"""The semantic consistency loss of a training step: (model, step) -> loss, and a record of it for display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Generator, Tensor

from dietnerf_ns.data.capture import Capture
from dietnerf_ns.geometry.cameras import viewing_directions
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.models.rasterized import RasterizedModel
from dietnerf_ns.semantic.encoders import EncoderConfig, ImageEncoder
from dietnerf_ns.semantic.gradient_limit import Gradients, gradients_of
from dietnerf_ns.semantic.loss import cosine_similarity, semantic_consistency_loss
from dietnerf_ns.semantic.poses import pose_sampler
from dietnerf_ns.semantic.rendering import render_image, render_view, view_camera, view_rays, window_of
from dietnerf_ns.semantic.schedule import SemanticSchedule
from dietnerf_ns.utils.distributed import draw_number
from dietnerf_ns.utils.errors import UserError, check_limits
from dietnerf_ns.utils.gpu_memory import free_unused_memory, is_out_of_memory
from dietnerf_ns.utils.images import Blend
from dietnerf_ns.utils.seeding import semantic_generator

MIN_RAYS_PER_CHUNK = 256
"""Smaller chunks save nothing worth the time: weights and the encoder then take most of the memory."""
UNIT_TOLERANCE = 0.1
"""An embedding is a unit vector; that of an encoder in half precision is one nearly."""


@dataclass
class SemanticConfig(EncoderConfig):
    """The semantic consistency loss: its weight, when and from where views are rendered, and the encoder."""

    weight: float = 0.1
    """lambda, per render of a view. 0 turns the loss off: the plain baseline, without loading an encoder."""
    max_gradient_ratio: float = 0.3
    """Upper limit of the semantic gradient's norm, relative to the photometric gradient's. It keeps feature grids from
    producing texture that only the encoder likes. 0: no limit, as in the paper."""
    every: int = 10
    """Number of steps from one semantic view to the next."""
    start: float = 0
    """First semantic step; below 1 a fraction of the run's steps."""
    stop: float = 0.8
    """No semantic view from this step on; up to 1 a fraction of the run's steps. The rest of the run is the paper's
    fine-tuning on the photometric loss alone."""
    resolution: int = 168
    """Shorter side of the rendered view in pixels, before the encoder's own resizing."""
    crop: float = 1.0
    """Side of the random window of the view that is rendered, as a fraction; a smaller one costs fewer rays."""
    poses: Literal["auto", "sphere", "interpolate"] = "auto"
    """Where unseen views are rendered from. sphere: a sphere around the scene. interpolate: between up to three
    training cameras, for front-facing photos. auto: the sphere if the cameras surround the scene."""
    theta_range: tuple[float, float] | None = None
    """Azimuth of the sphere in degrees. When not given: the whole circle if the photos have a uniform background,
    otherwise the arc that the training cameras cover."""
    phi_range: tuple[float, float] | None = None
    """Elevation of the sphere in degrees above the horizon; that of the training cameras when not given."""
    radius_range: tuple[float, float] | None = None
    """Distance to the sphere's centre in scene units; that of the training cameras when not given."""
    target: Literal["random", "nearest"] = "random"
    """Photo that the view is compared with: a random one, as in the paper, or the one with the nearest viewing
    direction."""
    checkpoint_render: bool = True
    """Recompute the render in the backward pass instead of keeping its activations: less memory, one more forward
    pass. Without effect on a view that fits in one chunk of rays, whose activations are kept."""
    rays_per_chunk: int | None = None
    """Number of rays of a semantic view that are rendered at once. Memory of larger views grows with it and not with
    the resolution. When not given: as many as in a training batch, so that a semantic step fits where a plain one does.
    On a GPU small chunks take nearly as long as large ones; those that do not fit are halved."""
    sample_fraction: float = 0.5
    """Number of samples along a ray of the semantic view, relative to a training ray. The encoder sees a small image,
    whose cost is proportional to this. Without effect in models whose rays have no fixed number of samples, such as
    instant-ngp, and in those that rasterise."""

    def check(self) -> None:
        """Refuse impossible settings.

        Raises:
            SettingError: for the first value that is not allowed.
        """
        limits = {
            "weight": (self.weight >= 0, "at least 0"),
            "max_gradient_ratio": (self.max_gradient_ratio >= 0, "at least 0"),
            "every": (self.every >= 1, "at least 1"),
            "start": (self.start >= 0, "at least 0"),
            "stop": (self.stop >= 0, "at least 0"),
            "sample_fraction": (0 < self.sample_fraction <= 1, "above 0 and at most 1"),
            "resolution": (self.resolution >= 8, "at least 8 pixels"),
            "crop": (0 < self.crop <= 1, "above 0 and at most 1"),
            "rays_per_chunk": (self.rays_per_chunk is None or self.rays_per_chunk >= 1, "at least 1"),
            "theta_range": (_is_range(self.theta_range), "two numbers, the smaller one first"),
            "phi_range": (_is_range(self.phi_range, -90, 90), "two numbers from -90 to 90, the smaller one first"),
            "radius_range": (_is_range(self.radius_range, 1e-6), "two numbers above 0, the smaller one first"),
        }
        check_limits(self, limits)


@dataclass(frozen=True)
class UnseenView:
    """A view that nobody photographed, and the photo that it is compared with."""

    whole: Cameras
    """That sees the whole view; shape [1]."""
    camera: Cameras
    """That sees what is rendered of the view; shape [1], on the training device."""
    rays: RayBundle
    """Of its pixels, flat, row-major, on the training device."""
    target_index: int
    """Index of the target photo among the kept training views."""

    @property
    def camera_to_world(self) -> Float[Tensor, "3 4"]:
        """The pose: OpenGL axes, scene units."""
        return self.whole.camera_to_worlds[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is rendered, in pixels."""
        return int(self.camera.height[0]), int(self.camera.width[0])


@dataclass(frozen=True)
class SemanticStep:
    """What happened at a semantic step, detached, for logs and the viewer."""

    step: int
    view: UnseenView
    renders: Float[Tensor, "num_renders 3 height width"]
    """RGB in [0, 1]."""
    similarity: Float[Tensor, ""]
    """Cosine similarity with the target photo, mean over the renders, in [-1, 1]."""
    loss: Float[Tensor, ""]
    """L_sc, weighted."""
    gradient: Float[Tensor, "num_renders 3 height width"] | None = None
    """dL_sc / dRGB, times the gradient scaler's factor; None before the backward pass."""


class SemanticConsistency:
    """Renders unseen views and pulls their embeddings towards those of the photos.

    Args:
        config: the settings, with a weight above 0.
        photos: the kept training views.
        blend: composes a photo with the background that the model renders.
        device: the training device.
        rays_per_batch: rays of a photometric batch.
        total_steps: number of steps of the run.
        seed: seed of the run.
        half_precision: whether training is in mixed precision on a GPU; the encoder is kept in half precision then.

    Raises:
        SettingError: impossible settings, or encoder weights that cannot be loaded.
        UserError: the encoder gives photos no embedding.
    """

    last: SemanticStep | None = None
    """The last semantic step."""
    paused: bool = False
    """Whether semantic views are left out for now."""
    switched_off: str | None = None
    """Why there are no semantic views any more in this run, as a sentence; None if there are."""
    _chunks_were_halved: bool = False

    def __init__(
        self,
        config: SemanticConfig,
        photos: InputDataset,
        *,
        blend: Blend,
        device: torch.device | str,
        rays_per_batch: int,
        total_steps: int,
        seed: int,
        half_precision: bool = False,
    ):
        config.check()
        self.config = config
        self.total_steps = total_steps
        self.device = torch.device(device)
        self.rays_per_chunk = config.rays_per_chunk or rays_per_batch
        self.schedule = SemanticSchedule.of_run(
            start=config.start, stop=config.stop, every=config.every, total_steps=total_steps
        )
        CONSOLE.print(
            f"Semantic views: every {config.every} steps from {self.schedule.first_step} to {self.schedule.end_step}."
        )
        self.cameras: Cameras = photos.cameras.to("cpu")
        capture = Capture.in_metadata(photos.metadata)
        self._sample_pose = pose_sampler(
            self.cameras.camera_to_worlds,
            config.poses,
            # Seen from where no photo was taken, an object without surroundings is still that object; a room is not.
            whole_circle=capture is not None and capture.background is not None,
            theta_range=config.theta_range,
            phi_range=config.phi_range,
            radius_range=config.radius_range,
        )
        self.encoder = config.load_encoder(self.device)
        if half_precision:
            self.encoder.keep_in_half_precision()
        with torch.autocast(self.device.type, enabled=half_precision):
            self.targets = embed_photos(self.encoder, photos, blend, self.device)
        _check_embeddings(self.targets, photos)
        self._seed = seed

    def say_if_there_are_none(self, whole_scene_from: int, *, first_step: int) -> None:
        """Warn if no semantic view will be rendered.

        Args:
            whole_scene_from: step from which views are rendered; see `SemanticModel.whole_scene_from`.
            first_step: that training starts with or goes on from.
        """
        step = self.schedule.next_step(max(whole_scene_from, first_step))
        if step is not None and step < self.total_steps:
            return
        why = "they would start after their `stop` or after the end of the run"
        end = min(self.schedule.end_step, self.total_steps)
        if first_step > 0 and first_step >= end:
            why = f"they stop at step {end}, and training goes on from step {first_step}"
        elif whole_scene_from > self.schedule.first_step:
            why = f"the sampled space grows until step {whole_scene_from}, and they stop at step {end}"
        CONSOLE.print(f"[yellow]Semantic views: there will be none, because {why}.[/yellow]", soft_wrap=True)

    def reconfigure(self, **settings: Any) -> None:
        """Change settings from the next step of a running training on.

        Args:
            settings: fields of `SemanticConfig`, except for those that decide on the encoder, the poses, and the first
                and the last semantic step, which have been used already.
        """
        self.config = replace(self.config, **settings)
        self.schedule = replace(self.schedule, every=self.config.every)

    def is_active(self, step: int) -> bool:
        """Whether the step lies in the part of the run that has semantic views, and they are not paused."""
        return self._takes_place and self.schedule.is_active(step)

    def is_due(self, step: int) -> bool:
        """Whether a semantic view is rendered at this step."""
        return self._takes_place and self.schedule.is_due(step)

    @property
    def _takes_place(self) -> bool:
        return not self.paused and self.switched_off is None

    def loss(self, model: SemanticModel, step: int) -> Float[Tensor, ""]:
        """Render one unseen view and compare it with a photo; already weighted.

        Must follow the photometric forward pass of the same step (see `evaluation_mode`).
        """
        view = self.sample_view(step)
        renders = self.render(model, view)
        similarity = self.similarity(renders, view.target_index)
        loss = semantic_consistency_loss(similarity, weight=self.config.weight)
        self.last = SemanticStep(step, view, renders.detach(), similarity.detach().mean(), loss.detach())
        if renders.requires_grad:
            renders.register_hook(self._keep_gradient)
        return loss

    def loss_and_gradients(
        self, model: SemanticModel, step: int, tensors: Sequence[Tensor], *, loss_scale: float = 1.0
    ) -> tuple[Float[Tensor, ""], Gradients]:
        """`loss` and its gradients. If a GPU's memory runs out, smaller chunks of rays are used from then on.

        Args:
            model: is rendered.
            step: of the run.
            tensors: what to differentiate with respect to.
            loss_scale: see `gradients_of`.

        Raises:
            UserError: the view does not fit in memory.
        """
        while True:
            try:
                loss = self.loss(model, step)
                return loss, gradients_of(loss, tensors, loss_scale=loss_scale)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._check_smaller_chunks_help(model, error)
            self._halve_chunks()  # after the error, whose traceback keeps the activations alive

    def _check_smaller_chunks_help(self, model: SemanticModel, error: RuntimeError) -> None:
        if isinstance(model, RasterizedModel):
            raise UserError(
                "Out of memory while a semantic view was rendered. Use a smaller --pipeline.semantic.resolution or a "
                "smaller encoder, or end other programs that use the GPU."
            ) from error
        if not self.config.checkpoint_render:
            raise UserError(
                "Out of memory while a semantic view was rendered. Use --pipeline.semantic.checkpoint-render True, "
                "which keeps no activations, or a smaller --pipeline.semantic.resolution."
            ) from error
        if self.rays_per_chunk // 2 < MIN_RAYS_PER_CHUNK:
            raise UserError(
                f"Out of memory while a semantic view was rendered, even with {self.rays_per_chunk} rays at once. Use "
                "a smaller --pipeline.datamanager.train-num-rays-per-batch, --pipeline.semantic.resolution or "
                "--pipeline.model.plane-resolution, a smaller encoder, or end other programs that use the GPU."
            ) from error

    def _halve_chunks(self) -> None:
        if not self._chunks_were_halved:
            CONSOLE.print(
                f"[yellow]Out of memory while a semantic view was rendered with {self.rays_per_chunk} rays at once. "
                "Fewer are rendered at once from now on, which takes a little longer.[/yellow]",
                soft_wrap=True,
            )
        self._chunks_were_halved = True
        self.rays_per_chunk //= 2
        free_unused_memory(self.device)

    def _keep_gradient(self, gradient: Tensor) -> None:
        if self.last is not None:
            self.last = replace(self.last, gradient=gradient.detach())

    def sample_view(self, step: int) -> UnseenView:
        """The view of a step in this process; it depends on the run's seed, the step and the process alone."""
        generator = semantic_generator(self._seed, draw_number(step))
        camera_to_world = self._sample_pose(generator)
        reference = int(torch.randint(len(self.cameras), (), generator=generator))
        camera = view_camera(self.cameras[reference : reference + 1], camera_to_world, self.config.resolution)
        square = self.encoder.sees_central_square
        window = window_of(camera, generator, crop=self.config.crop, square=square).to(self.device)
        rays = view_rays(window, generator)
        return UnseenView(camera, window, rays, self._target_index(camera_to_world, generator))

    def render(self, model: SemanticModel, view: UnseenView) -> Float[Tensor, "num_renders 3 height width"]:
        """The view as the model renders it, RGB in [0, 1], with gradients."""
        if isinstance(model, RasterizedModel):
            return render_image(model, view.camera)
        return render_view(
            model,
            view.rays,
            view.size,
            rays_per_chunk=self.rays_per_chunk,
            recompute=self.config.checkpoint_render,
            sample_fraction=self.config.sample_fraction,
        )

    def similarity(
        self, renders: Float[Tensor, "num_renders 3 height width"], target_index: int
    ) -> Float[Tensor, "num_renders"]:
        """Cosine similarity of renders with a photo, in [-1, 1], with gradients to the renders.

        Args:
            renders: RGB in [0, 1].
            target_index: index of the photo.
        """
        return cosine_similarity(self.encoder.embed(self.encoder.preprocess(renders)), self.targets[target_index])

    def _target_index(self, camera_to_world: Float[Tensor, "3 4"], generator: Generator) -> int:
        if self.config.target == "random":
            return int(torch.randint(len(self.targets), (), generator=generator))
        directions = viewing_directions(self.cameras.camera_to_worlds)
        return int((directions @ viewing_directions(camera_to_world[None])[0]).argmax())


@torch.no_grad()
def embed_photos(
    encoder: ImageEncoder, dataset: InputDataset, blend: Blend, device: torch.device
) -> Float[Tensor, "num_photos dim"]:
    """phi(photo) of every kept training view on the model's background, as unit vectors."""
    images = (blend(dataset.get_image_float32(i).to(device)) for i in range(len(dataset)))
    photos = (image.permute(2, 0, 1)[None] for image in images)
    return torch.cat([encoder.embed(encoder.preprocess(photo)) for photo in photos])


def _check_embeddings(targets: Float[Tensor, "num_photos dim"], photos: InputDataset) -> None:
    norms = targets.float().norm(dim=-1)
    bad = (~((norms - 1).abs() < UNIT_TOLERANCE)).nonzero()[:, 0].tolist()  # a comparison with NaN is false
    if bad:
        raise UserError(
            f"Semantic views: the encoder gives no direction for {len(bad)} of {len(photos)} photos, such as "
            f"{photos.image_filenames[bad[0]].name}: the embedding is zero or not finite. Use another encoder or other "
            "weights, train with --pipeline.semantic.weight 0, or, on a GPU, with --mixed-precision False."
        )


def _is_range(given: tuple[float, float] | None, least: float = -math.inf, most: float = math.inf) -> bool:
    return given is None or least <= given[0] <= given[1] <= most
