"""The paper's own network: positional encoding and two 8 x 256 MLPs, coarse and fine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.encodings import NeRFEncoding
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.models import vanilla_nerf
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dietnerf_ns.data.capture import Capture
from dietnerf_ns.models.agreement import (
    TRANSPARENCY_HINT,
    background_of_photos,
    check_planes,
    is_photos_background,
)
from dietnerf_ns.models.base import FAINT, Render, SemanticModel
from dietnerf_ns.models.scene import object_seen_by
from dietnerf_ns.utils.compat import replaced
from dietnerf_ns.utils.errors import SettingError, UserError, check_limits, flags_under

PLANE_FLAGS = "--pipeline.model.collider-params near_plane {:g} far_plane {:g}"


def positional_encoding(frequencies: int) -> NeRFEncoding:
    """The positional encoding of three numbers as in the paper's code.

    The numbers themselves, and sine and cosine of 1, 2, 4, ... times the numbers. nerfstudio multiplies by 2 pi first.

    Args:
        frequencies: how many powers of two.
    """
    lowest = -math.log2(2 * math.pi)
    return NeRFEncoding(3, frequencies, lowest, lowest + frequencies - 1, include_input=True)


@dataclass
class DietVanillaModelConfig(VanillaModelConfig):
    """nerfstudio's vanilla NeRF; near and far planes are in collider-params."""

    _target: type = field(default_factory=lambda: DietVanillaModel)
    semantic_renders: Literal["coarse", "fine", "both"] = "both"
    """Renders that the semantic loss compares: both as in the paper, or one to save memory."""
    network_layers: int = 8
    """Layers of each of the two networks; half of them come before the skip connection."""
    network_width: int = 256
    """Channels of a layer; the layer of the colour has half."""


class DietVanillaModel(SemanticModel, NeRFModel):
    """Coarse and fine NeRF whose output names also fit nerfstudio's render and export commands.

    Args:
        config: see `DietVanillaModelConfig`; `VanillaModelConfig` for the rest.
    """

    config: DietVanillaModelConfig
    collider: NearFarCollider
    field_coarse: NeRFField
    field_fine: NeRFField
    can_restart = True
    faint = FAINT

    def semantic_renders(self, outputs: Mapping[str, Tensor]) -> Sequence[Render]:
        """The coarse render, the fine one, or both."""
        chosen = self.config.semantic_renders
        names = ("coarse", "fine") if chosen == "both" else (chosen,)
        return [(outputs[f"rgb_{name}"], outputs[f"accumulation_{name}"]) for name in names]

    def populate_modules(self) -> None:
        """Build nerfstudio's vanilla NeRF with the paper's encoding; the near plane also holds in evaluation.

        Raises:
            UserError: settings that cannot work.
        """
        with flags_under("--pipeline.model."):
            limits = {
                "network_layers": (self.config.network_layers >= 2, "at least 2"),
                "network_width": (self.config.network_width >= 2, "at least 2"),
                "enable_collider": (self.config.enable_collider, "True: rays need near and far planes"),
                "num_coarse_samples": (self.config.num_coarse_samples >= 1, "at least 1"),
                "num_importance_samples": (self.config.num_importance_samples >= 0, "at least 0"),
                "loss_coefficients": (self._weight_of_fine_loss() > 0, "above 0 for rgb_loss_fine"),
            }
            check_limits(self.config, limits)
            self._check_collider_params()
        layers, width = self.config.network_layers, self.config.network_width
        network = partial(
            NeRFField,
            base_mlp_num_layers=layers,
            base_mlp_layer_width=width,
            head_mlp_layer_width=width // 2,
            skip_connections=(layers // 2,),
        )
        with replaced(vanilla_nerf, "NeRFField", network):
            super().populate_modules()
        self.collider.reset_near_plane = False
        self._check_against_photos()
        for network in (self.field_coarse, self.field_fine):
            network.position_encoding = positional_encoding(10)
            network.direction_encoding = positional_encoding(4)

    def _check_collider_params(self) -> None:
        planes = self.config.collider_params or {}
        typed = " ".join(f"{name} {value:g}" for name, value in planes.items())
        if planes.keys() != {"near_plane", "far_plane"}:
            raise SettingError("collider_params", typed, "must be near_plane and far_plane, each with a distance.")
        if not 0 <= planes["near_plane"] < planes["far_plane"]:
            reason = "the near plane must be at least 0, and the far plane behind it."
            raise SettingError("collider_params", typed, reason)

    def photometric_mse(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Mean squared error of the fine render of the last step's training rays, RGB in [0, 1].

        Args:
            losses: what `get_loss_dict` returned, weighted by `loss_coefficients`.
        """
        return losses["rgb_loss_fine"] / self._weight_of_fine_loss()

    def _weight_of_fine_loss(self) -> float:
        return self.config.loss_coefficients.get("rgb_loss_fine", 1.0)

    def _check_against_photos(self) -> None:
        capture = Capture.in_metadata(self.kwargs["metadata"])
        if capture is None or not capture.photos_opened:
            return
        box = object_seen_by(capture)
        if box is not None:
            planes = (self.collider.near_plane, self.collider.far_plane)
            try:
                check_planes(box, capture.cameras, planes, is_fitted=capture.hull is not None, flags=PLANE_FLAGS)
            except UserError as error:  # the box is a guess: this model has none
                CONSOLE.print(f"[bold yellow]{error}[/bold yellow]")
        if not is_photos_background(self.config.background_color, capture):
            line = background_of_photos(self.config.background_color, capture)
            CONSOLE.print(f"[yellow]{line}: the model has to paint it. {TRANSPARENCY_HINT}[/yellow]")

    def get_outputs(self, ray_bundle: RayBundle) -> dict:
        """Coarse and fine outputs; the fine ones also under the names that other models use."""
        outputs = super().get_outputs(ray_bundle)
        return outputs | {name: outputs[f"{name}_fine"] for name in ("rgb", "accumulation", "depth")}

    def get_image_metrics_and_images(self, outputs, batch):
        """The metrics and images of `SemanticModel`; the fine render's metrics also under the common names.

        Args:
            outputs: of a camera's pixels: `rgb_coarse` and `rgb_fine` [height, width, 3] in [0, 1] and others.
            batch: `image`, the photo, [height, width, 3 or 4] in [0, 1]; `mask` if it has one, [height, width, 1].
        """
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        return metrics | {name.removeprefix("fine_"): value for name, value in metrics.items()}, images
