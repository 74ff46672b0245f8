"""The one object that the pipeline talks to: (model, step) -> semantic consistency loss, and what to show of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.models.base_model import Model
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Generator, Tensor

from dietnerf_ns.geometry.cameras import cameras_surround_scene, viewing_directions
from dietnerf_ns.geometry.sphere import Sphere, fit_sphere
from dietnerf_ns.semantic.encoders import EmbeddedEncoder, ImageEncoder, OpenClipEncoder
from dietnerf_ns.semantic.loss import cosine_similarity, semantic_consistency_loss
from dietnerf_ns.semantic.poses import interpolated_pose, pose_on_sphere
from dietnerf_ns.semantic.rendering import render_view, view_camera, view_rays
from dietnerf_ns.utils.errors import check_limits
from dietnerf_ns.utils.seeding import semantic_generator

Blend = Callable[[Float[Tensor, "height width channels"]], Float[Tensor, "height width 3"]]


@dataclass
class SemanticConfig:
    """The semantic consistency loss: how much, when, of which views, judged by which encoder."""

    weight: float = 0.1
    """lambda, per render of a view. 0 turns the loss off: the plain baseline, without loading an encoder."""
    max_gradient_ratio: float = 0.3
    """The semantic gradient on the field is made at most this many times as long as the photometric one; keeps feature
    grids from painting texture that pleases the encoder alone. 0: no limit, as in the paper."""
    every: int = 10
    """A semantic view is rendered every so many steps."""
    start: float = 0
    """First semantic step; below 1 a fraction of the run's steps."""
    stop: float = 0.8
    """No semantic view from this step on; up to 1 a fraction of the run's steps. The rest of the run is the paper's
    fine-tuning on the photometric loss alone."""
    resolution: int = 168
    """Shorter side of the rendered view in pixels, before the encoder's own resizing."""
    crop: float = 1.0
    """Side of a random window of the view that is rendered, as a fraction: fewer rays."""
    encoder: Literal["open-clip", "embedded"] = "open-clip"
    """open-clip: CLIP, the paper's choice; downloads its weights at first use. embedded: ImageNet EfficientNet-Lite0
    from an installed package; no download, small, weaker."""
    clip_model: str = "ViT-B-32-quickgelu"
    """Model name of open-clip-torch. OpenAI's weights need the -quickgelu variants."""
    clip_pretrained: str = "openai"
    """Weights of the CLIP model: a tag of open-clip-torch or a checkpoint file."""
    embedding: Literal["projected", "class-token"] = "projected"
    """Which CLIP vector: the projected image feature, or the last layer's class token as in the paper's code."""
    poses: Literal["auto", "sphere", "interpolate"] = "auto"
    """Where unseen views are rendered from: a sphere around the scene; between up to three training cameras, for
    front-facing photos; auto takes the sphere if the cameras surround the scene."""
    theta_range: tuple[float, float] | None = None
    """Azimuth of the sphere in degrees; the whole circle when not given."""
    phi_range: tuple[float, float] | None = None
    """Elevation of the sphere in degrees above the horizon; that of the training cameras when not given."""
    radius_range: tuple[float, float] | None = None
    """Distance to the sphere's centre in scene units; that of the training cameras when not given."""
    target: Literal["random", "nearest"] = "random"
    """Which photo the view is compared with: any, as in the paper, or the one with the nearest viewing direction."""
    checkpoint_render: bool = True
    """Recompute the render in the backward pass instead of keeping its activations: less memory, one more forward."""
    rays_per_chunk: int | None = None
    """Rays rendered at once in a semantic view, whose memory grows with it and not with the resolution; as many as in
    a training batch when not given, so that a semantic step fits where a plain one does."""
    sample_fraction: float = 0.5
    """Samples along a ray of the semantic view, as a fraction of those along a training ray: the encoder sees a small
    image, whose cost is proportional to this."""
    mixed_precision: bool = False
    """Render the semantic view in bfloat16 even when training is in full precision."""


@dataclass(frozen=True)
class UnseenView:
    """A view that nobody photographed, and the photo that it is compared with."""

    camera_to_world: Float[Tensor, "3 4"]
    """OpenGL axes."""
    rays: RayBundle
    """Flat, row-major, on the training device."""
    size: tuple[int, int]
    """Height and width in pixels."""
    target_index: int
    """Index of the target photo among the kept training views."""


@dataclass(frozen=True)
class SemanticStep:
    """What happened at a semantic step, detached, for logs and the viewer."""

    step: int
    view: UnseenView
    renders: Float[Tensor, "num_renders 3 height width"]
    similarity: Float[Tensor, ""]
    """Cosine similarity with the target photo, mean over renders, in [-1, 1]."""
    loss: Float[Tensor, ""]
    """Weighted."""
    gradient: Float[Tensor, "num_renders 3 height width"] | None = None
    """dL_sc / dRGB, times the gradient scaler's factor: what the encoder wants changed. None before the backward."""


class SemanticConsistency:
    """Renders unseen views now and then and pulls their embeddings towards the photos'.

    Args:
        config: the settings.
        device: the training device.
        rays_per_batch: of the photometric loss.
    """

    def __init__(self, config: SemanticConfig, device: torch.device | str, *, rays_per_batch: int):
        self.config = config
        self.rays_per_chunk = config.rays_per_chunk or rays_per_batch
        self.device = torch.device(device)
        self.encoder: ImageEncoder | None = None
        self.last: SemanticStep | None = None
        self.paused = False
        _check(config)

    def prepare(self, dataset: InputDataset, *, blend: Blend, total_steps: int, seed: int) -> None:
        """Load the encoder, embed the photos, and decide where poses come from; before training starts.

        With weight 0 nothing is loaded.

        Args:
            dataset: the kept training views.
            blend: puts an RGBA photo on the background that the model renders; leaves RGB as it is.
            total_steps: of the run, for `start` and `stop`.
            seed: of the run.

        Raises:
            UserError: the encoder's weights cannot be loaded.
        """
        if self.config.weight == 0:
            return
        self.seed = seed
        self.first_step = round(self.config.start * (total_steps if self.config.start < 1 else 1))
        self.end_step = round(self.config.stop * (total_steps if self.config.stop <= 1 else 1))
        CONSOLE.print(f"Semantic views: every {self.config.every} steps from {self.first_step} to {self.end_step}.")
        if self.first_step >= min(self.end_step, total_steps):
            CONSOLE.print(
                "[yellow]Semantic views: there will be none, for --pipeline.semantic.stop or the run's end comes first."
            )
        self.cameras: Cameras = dataset.cameras.to("cpu")
        self._choose_poses()
        self.encoder = make_encoder(self.config, self.device)
        self.targets = embed_photos(self.encoder, dataset, blend, self.device)

    def reconfigure(self, *, weight: float, every: int) -> None:
        """Change the loss of a running training, from its next step on."""
        self.config = replace(self.config, weight=weight, every=every)

    def is_active(self, step: int) -> bool:
        """Whether the step lies in the part of the run that has semantic views, and they are not paused."""
        return self.encoder is not None and not self.paused and self.first_step <= step < self.end_step

    def is_due(self, step: int) -> bool:
        """Whether a semantic view is rendered at this step."""
        return self.is_active(step) and (step - self.first_step) % self.config.every == 0

    def loss(self, model: Model, step: int) -> Float[Tensor, ""]:
        """Render one unseen view and compare it with a photo; already weighted.

        Must follow the photometric forward pass of the same step (see `seen_as_in_the_viewer`).
        """
        view = self.sample_view(step)
        renders = self.render(model, view)
        similarity = self.similarity(renders, view.target_index)
        loss = semantic_consistency_loss(similarity, weight=self.config.weight)
        self.last = SemanticStep(step, view, renders.detach(), similarity.detach().mean(), loss.detach())
        if renders.requires_grad:
            renders.register_hook(self._keep_gradient)
        return loss

    def _keep_gradient(self, gradient: Tensor) -> None:
        self.last = replace(self.last, gradient=gradient.detach())

    def sample_view(self, step: int) -> UnseenView:
        """The view of a step; it depends on the run's seed and the step alone."""
        generator = semantic_generator(self.seed, step)
        camera_to_world = self._sample_pose(generator)
        reference = int(torch.randint(len(self.cameras), (), generator=generator))
        camera = view_camera(self.cameras[reference : reference + 1], camera_to_world, self.config.resolution)
        rays, size = view_rays(camera.to(self.device), generator, crop=self.config.crop)
        return UnseenView(camera_to_world, rays, size, self._target_index(camera_to_world, generator))

    def render(self, model: Model, view: UnseenView) -> Float[Tensor, "num_renders 3 height width"]:
        """The view as the model sees it, RGB in [0, 1], with gradients."""
        return render_view(
            model,
            view.rays,
            view.size,
            output_names=model.semantic_outputs,
            rays_per_chunk=self.rays_per_chunk,
            recompute=self.config.checkpoint_render,
            mixed_precision=self.config.mixed_precision,
            sample_fraction=self.config.sample_fraction,
        )

    def similarity(
        self, renders: Float[Tensor, "num_renders 3 height width"], target_index: int
    ) -> Float[Tensor, "num_renders"]:
        """Cosine similarity of renders, RGB in [0, 1], with a photo: in [-1, 1], with gradients to the renders."""
        return cosine_similarity(self.encoder.embed(self.encoder.preprocess(renders)), self.targets[target_index])

    def _choose_poses(self) -> None:
        poses = self.config.poses
        camera_to_worlds = self.cameras.camera_to_worlds
        if poses == "auto":
            surround = cameras_surround_scene(camera_to_worlds)
            poses = "sphere" if surround else "interpolate"
            why = "surround the scene" if surround else "do not surround the scene"
            CONSOLE.print(f"Semantic views: poses auto chose {poses}, for the training cameras {why}.")
        self.sphere = self._sphere() if poses == "sphere" else None
        if self.sphere is None and self._given_ranges():
            CONSOLE.print("[yellow]Semantic views: interpolated poses take no theta-range, phi-range or radius-range.")
        if self.sphere is not None:
            angles = [
                f"{name} {low:.0f} to {high:.0f}"
                for name, (low, high) in (("theta", self.sphere.azimuth_range), ("phi", self.sphere.elevation_range))
            ]
            low, high = self.sphere.radius_range
            CONSOLE.print(
                f"Semantic views: {', '.join(angles)} degrees, radius {low:.2f} to {high:.2f} around "
                f"({', '.join(f'{x:.2f}' for x in self.sphere.center)})."
            )

    def _sphere(self) -> Sphere:
        return replace(fit_sphere(self.cameras.camera_to_worlds), **self._given_ranges())

    def _given_ranges(self) -> dict[str, tuple[float, float]]:
        ranges = {
            "azimuth_range": self.config.theta_range,
            "elevation_range": self.config.phi_range,
            "radius_range": self.config.radius_range,
        }
        return {name: given for name, given in ranges.items() if given is not None}

    def _sample_pose(self, generator: Generator) -> Float[Tensor, "3 4"]:
        if self.sphere is not None:
            return pose_on_sphere(self.sphere, generator)
        return interpolated_pose(self.cameras.camera_to_worlds, generator)

    def _target_index(self, camera_to_world: Tensor, generator: Generator) -> int:
        if self.config.target == "random":
            return int(torch.randint(len(self.targets), (), generator=generator))
        directions = viewing_directions(self.cameras.camera_to_worlds)
        return int((directions @ viewing_directions(camera_to_world[None])[0]).argmax())


def make_encoder(config: SemanticConfig, device: torch.device | str) -> ImageEncoder:
    """The encoder that the settings name, on the device."""
    if config.encoder == "embedded":
        return EmbeddedEncoder(device)
    return OpenClipEncoder(config.clip_model, config.clip_pretrained, embedding=config.embedding, device=device)


@torch.no_grad()
def embed_photos(
    encoder: ImageEncoder, dataset: InputDataset, blend: Blend, device: torch.device
) -> Float[Tensor, "num_photos dim"]:
    """phi(photo) of every kept training view, on the model's background, as unit vectors."""
    images = (blend(dataset.get_image_float32(i).to(device)) for i in range(len(dataset)))
    photos = (image.permute(2, 0, 1)[None] for image in images)
    return torch.cat([encoder.embed(encoder.preprocess(photo)) for photo in photos])


def _check(config: SemanticConfig) -> None:
    limits = {
        "weight": (config.weight >= 0, "at least 0"),
        "max_gradient_ratio": (config.max_gradient_ratio >= 0, "at least 0"),
        "every": (config.every >= 1, "at least 1"),
        "start": (config.start >= 0, "at least 0"),
        "stop": (config.stop >= 0, "at least 0"),
        "sample_fraction": (0 < config.sample_fraction <= 1, "above 0 and at most 1"),
        "resolution": (config.resolution >= 8, "at least 8 pixels"),
        "crop": (0 < config.crop <= 1, "above 0 and at most 1"),
        "rays_per_chunk": (config.rays_per_chunk is None or config.rays_per_chunk >= 1, "at least 1"),
        "theta_range": (_is_range(config.theta_range), "two numbers, the smaller one first"),
        "phi_range": (_is_range(config.phi_range, -90, 90), "two numbers from -90 to 90, the smaller one first"),
        "radius_range": (_is_range(config.radius_range, 1e-6), "two numbers above 0, the smaller one first"),
    }
    check_limits(config, limits, prefix="pipeline.semantic.")


def _is_range(given: tuple[float, float] | None, least: float = -math.inf, most: float = math.inf) -> bool:
    return given is None or least <= given[0] <= given[1] <= most
