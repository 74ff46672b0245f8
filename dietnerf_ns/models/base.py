"""What a model must offer to be trained with the semantic loss, with defaults for nerfstudio's ray-based models.

The pipeline and the semantic loss use a model through `SemanticModel` alone. A ray-based model of nerfstudio (its
`get_outputs` takes a `RayBundle`) needs nothing more than the base class, in front of its own:

    class SemanticTensoRF(SemanticModel, TensoRFModel):
        \"\"\"TensoRF as it is.\"\"\"

`models.trainable.trainable_with_semantic_loss` makes that class for any model configuration. A model overrides what
differs: which of its outputs the semantic loss compares, or which tensors gradients are taken with respect to. Models
that rasterise are in `models.rasterized`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.model_components.ray_samplers import ProposalNetworkSampler, Sampler
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor

from dietnerf_ns.models.implementation import draw_tcnn_parameters
from dietnerf_ns.models.metrics import LazyLPIPS, black_outside, missing_metrics, psnr_inside, without_missing
from dietnerf_ns.utils.compat import interrupted_in_nerfstudio_only, lpips_replaced_by, replaced
from dietnerf_ns.utils.errors import UserError, check_limits, flags_under

Render = tuple[Float[Tensor, "*pixels 3"], Float[Tensor, "*pixels 1"]]
"""RGB in [0, 1] and accumulation in [0, 1] of a ray bundle, or of an image."""


MOST_BUNDLES_OF_NOTHING = 100
STEPS_WITH_UPDATE = 10
"""nerfstudio trains proposal networks in so many first steps, whatever their schedule says."""
FAINT = 1e-3
"""`SemanticModel.faint` of this package's own models, whose densities are exponentials or softplus."""
MIN_ALPHA = 1e-3
"""Opacity below which the colour of a pixel is not told from its background's."""


class SemanticModel(Model):
    """A nerfstudio model whose views can be rendered with gradients and pulled towards the photos' embeddings.

    `model(ray_bundle)`, with a flat bundle of num_rays rays, must return a dictionary of outputs that has either `rgb`
    and `accumulation`, or both with `_coarse` and with `_fine`, and `get_loss_dict` must return the photometric loss as
    `rgb_loss` or `rgb_loss_fine`. Other names need the first three methods overridden.
    """

    renderer_rgb: RGBRenderer
    faint: float = 0.0
    """Accumulation up to which no gradient is taken through a ray of an unseen view, in [0, 1].

    0 is right for every model. More is exact enough where the density's slope is no larger than the density itself, so
    that the gradient of such a ray is as small as its accumulation. See `shows_last_sample` for rays that show
    something all the same."""
    can_restart: bool = False
    """Whether a collapsed training may be restarted: the photometric loss is a mean squared error, parameters keep
    their shapes while training, and `rebuild` draws new random numbers. True for the models of this package."""

    _bundles_of_nothing = 0
    first_step: int = 0
    """Step at which the present initialisation started to train; see `begin_attempt`."""

    def populate_modules(self) -> None:
        """Build the model. LPIPS, whose backbone is a download, is loaded when an image is first evaluated.

        Raises:
            UserError: images would be rendered in chunks of no rays.
        """
        with flags_under("--pipeline.model."):
            rays = self.config.eval_num_rays_per_chunk
            check_limits(self.config, {"eval_num_rays_per_chunk": (rays >= 1, "at least 1")})
        with lpips_replaced_by(LazyLPIPS):
            super().populate_modules()
        draw_tcnn_parameters(self)

    def semantic_renders(self, outputs: Mapping[str, Tensor]) -> Sequence[Render]:
        """The renders that the semantic loss compares with photos, the best one last.

        Args:
            outputs: of the model for a flat ray bundle, or for the camera of a model that rasterises.
        """
        suffixes = ("",) if "rgb" in outputs else ("_coarse", "_fine")
        return [(outputs[f"rgb{suffix}"], outputs[f"accumulation{suffix}"]) for suffix in suffixes]

    @property
    def needs_background_rays(self) -> bool:
        """Whether the losses of training need the batch's `is_background`; see `FewShotDataManager.next_train`."""
        return False

    def photometric_mse(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Mean squared error of the last step's training rays, RGB in [0, 1], in front of the photos' background.

        Args:
            losses: what `get_loss_dict` returned.
        """
        return losses["rgb_loss" if "rgb_loss" in losses else "rgb_loss_fine"]

    def mean_opacity(self, outputs: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Mean accumulation of the training rays, in [0, 1].

        Args:
            outputs: of the model for the training rays.
        """
        return outputs["accumulation" if "accumulation" in outputs else "accumulation_fine"].mean()

    def gradient_inputs(self) -> list[Tensor]:
        """The tensors that a step's gradients are taken with respect to: the trainable parameters."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def blend_background(self, image: Float[Tensor, "*pixels channels"]) -> Float[Tensor, "*pixels 3"]:
        """Compose an RGBA photo with the background that the model renders; RGB photos stay as they are.

        Args:
            image: RGB or RGBA with straight alpha, in [0, 1].
        """
        return image if image.shape[-1] == 3 else self.renderer_rgb.blend_background(image)

    @contextlib.contextmanager
    def scaled_samples(self, factor: float, *, proposals: bool = True) -> Iterator[None]:
        """Inside, rays have so many times their samples, at least one of each kind.

        Scales nerfstudio's samplers that have a fixed number of samples.

        Args:
            factor: above 0.
            proposals: scale the samples of proposal networks, too.
        """
        with contextlib.ExitStack() as stack:
            for sampler in self.modules():
                if isinstance(sampler, ProposalNetworkSampler):
                    samples = _scaled(factor, sampler.num_nerf_samples_per_ray)
                    stack.enter_context(replaced(sampler, "num_nerf_samples_per_ray", samples))
                    if proposals:
                        counts = tuple(_scaled(factor, count) for count in sampler.num_proposal_samples_per_ray)
                        stack.enter_context(replaced(sampler, "num_proposal_samples_per_ray", counts))
                elif isinstance(sampler, Sampler) and sampler.num_samples is not None:
                    stack.enter_context(replaced(sampler, "num_samples", _scaled(factor, sampler.num_samples)))
            yield

    @property
    def has_fixed_samples(self) -> bool:
        """Whether rays have a number of samples that `scaled_samples` can change."""
        samplers = [module for module in self.modules() if isinstance(module, Sampler)]
        return any(isinstance(one, ProposalNetworkSampler) or one.num_samples is not None for one in samplers)

    def rays_of_unseen_view(self, rays: RayBundle) -> RayBundle:
        """The rays of an unseen view as `get_outputs` expects them: they come with no metadata.

        A model whose rays carry more than themselves, such as the photos that a network is conditioned on, adds it.

        Args:
            rays: flat, part of one view.
        """
        return rays

    def may_hit(self, rays: RayBundle) -> Bool[Tensor, "num_rays"] | None:
        """Whether rays may hit something, or None if this is not known. The others show `background` alone.

        At least one ray is named.

        Args:
            rays: flat, of one view.
        """
        return None

    @property
    def background(self) -> Float[Tensor, "3"]:
        """RGB in [0, 1] of a ray that hits nothing."""
        nothing = torch.zeros(1, 1, 3, device=self.device)
        return self.renderer_rgb(rgb=nothing, weights=nothing[..., :1])[0]

    @property
    def shows_last_sample(self) -> bool:
        """Whether the background of a ray is the colour of its last sample, so that no ray shows nothing."""
        return self._background_kind == "last_sample"

    @property
    def _background_kind(self) -> str:
        """`last_sample`, `random`, `none` in models without such a renderer, and otherwise `colour`."""
        colour = getattr(getattr(self, "renderer_rgb", None), "background_color", None)
        if colour is None:
            return "none"
        return colour if isinstance(colour, str) and colour in ("last_sample", "random") else "colour"

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Float[Tensor, "*pixels 4"]:
        """A render as RGBA with straight alpha, in [0, 1], for exporters.

        nerfstudio's models call every pixel opaque unless their background is random.

        Args:
            outputs: of a camera.
            output_name: of the render.
        """
        opacity = outputs.get(output_name.replace("rgb", "accumulation"))
        if opacity is not None and opacity.ndim == 2:
            self._refuse_to_export_nothing(opacity)
        if self._background_kind != "colour" or opacity is None:
            return super().get_rgba_image(outputs, output_name)
        render = outputs[output_name]
        colour = (render - self.background.to(render) * (1 - opacity)) / opacity.clamp(min=MIN_ALPHA)
        return torch.cat([colour.clamp(0, 1), opacity], dim=-1)

    def _refuse_to_export_nothing(self, opacity: Float[Tensor, "num_rays 1"]) -> None:
        """End an export of points that would take rays for ever, because none of them is opaque."""
        self._bundles_of_nothing = 0 if bool((opacity > 0.5).any()) else self._bundles_of_nothing + 1
        if self._bundles_of_nothing >= MOST_BUNDLES_OF_NOTHING:
            raise UserError(
                f"{self._bundles_of_nothing} times in a row no ray hit anything opaque: this run shows nothing that "
                "could be exported. Look at it with ns-viewer."
            )

    def whole_scene_from(self, total_steps: int) -> int:
        """Step from which the model renders all of a view. Before it no semantic view is compared with a photo.

        Args:
            total_steps: number of steps of the run.
        """
        return 0

    def begin_attempt(self, step: int) -> None:
        """Schedules that depend on how long the present initialisation has trained start at this step."""
        self.first_step = step

    @property
    def given_config(self) -> ModelConfig:
        """The configuration that the model was built from, before anything was derived from the scene."""
        return self.config

    def rebuild(self, *, metadata: Mapping[str, Any] | None = None, **settings: Any) -> SemanticModel:
        """An untrained model for the same scene, on the CPU.

        Args:
            metadata: of the training dataset; the present model's if None.
            settings: changed in the configuration.
        """
        kwargs = self.kwargs if metadata is None else self.kwargs | {"metadata": metadata}
        config = replace(self.given_config, **settings)
        return config.setup(scene_box=self.scene_box, num_train_data=self.num_train_data, **kwargs)

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Render an image, which changes nothing in training, also if nerfstudio's viewer interrupts it.

        Args:
            camera: shape [1].
            obb_box: that the render is cropped to.

        Returns:
            The model's outputs, [height, width, channels].
        """
        with interrupted_in_nerfstudio_only(), proposal_updates_kept(self):
            return super().get_outputs_for_camera(camera, obb_box)

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The model's own metrics and images of an evaluation view; pixels outside the photo's mask do not count.

        LPIPS is left out where it cannot be computed, and NaN if it could be computed for an earlier image. With a
        mask, PSNR is taken over its pixels. For all other metrics, photo and render are black outside it. The images
        are whole. The model computes both together and therefore runs twice, which is quick next to rendering.

        Args:
            outputs: of a camera's pixels: renders [height, width, 3] in [0, 1] under names that begin with `rgb`, and
                others.
            batch: `image`, the photo, [height, width, 3 or 4] in [0, 1]; for some data `mask`, [height, width, 1], True
                where pixels count.

        Returns:
            Numbers by name, those of PSNR with names that end in `psnr`; and images by name, RGB in [0, 1].
        """
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if "mask" not in batch:
            return without_missing(metrics, self), images
        mask = batch["mask"]
        renders = {name: black_outside(mask, image) for name, image in outputs.items() if name.startswith("rgb")}
        photo = black_outside(mask, self.blend_background(batch["image"]))
        metrics, _ = super().get_image_metrics_and_images(outputs | renders, batch | {"image": photo})
        return without_missing(psnr_inside(mask, metrics), self), images

    def missing_metrics(self) -> dict[str, str]:
        """Image metrics that could not be computed, with the reason."""
        return missing_metrics(self)


@contextlib.contextmanager
def proposal_updates_kept(model: Model) -> Iterator[None]:
    """Inside, rendering does not count for the schedule by which nerfacto trains its proposal networks.

    Nor does it keep their activations, which no gradient needs: samples are placed without one.

    Args:
        model: of which nerfstudio's proposal samplers count every forward pass, also in evaluation.
    """
    with contextlib.ExitStack() as stack:
        for sampler in model.modules():
            if isinstance(sampler, ProposalNetworkSampler):
                stack.enter_context(replaced(sampler, "_step", max(sampler._step, STEPS_WITH_UPDATE)))
                stack.enter_context(replaced(sampler, "update_sched", lambda step: math.inf))
        yield


def _scaled(factor: float, count: int) -> int:
    return max(1, round(factor * count))
