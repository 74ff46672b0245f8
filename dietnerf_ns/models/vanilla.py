"""The paper's own network: positional encoding and two 8 x 256 MLPs, coarse and fine."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.encodings import NeRFEncoding
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig
from torch import Tensor

from dietnerf_ns.models.metrics import LazyLPIPS, without_missing
from dietnerf_ns.utils.compat import lpips_replaced_by


def positional_encoding(frequencies: int) -> NeRFEncoding:
    """Of three numbers, as in the paper's code: the numbers, sine and cosine of their 1-, 2-, 4-, ... fold.

    nerfstudio's multiplies them by 2 pi first.
    """
    lowest = -math.log2(2 * math.pi)
    return NeRFEncoding(3, frequencies, lowest, lowest + frequencies - 1, include_input=True)


@dataclass
class DietVanillaModelConfig(VanillaModelConfig):
    """nerfstudio's vanilla NeRF; near and far are in collider-params."""

    _target: type = field(default_factory=lambda: DietVanillaModel)
    semantic_renders: Literal["coarse", "fine", "both"] = "both"
    """Which renders the semantic loss sees: both as in the paper, or one to save memory."""


class DietVanillaModel(NeRFModel):
    """Coarse and fine NeRF whose output names also fit nerfstudio's render and export commands.

    Args:
        config: see `DietVanillaModelConfig`; `VanillaModelConfig` for the rest.
    """

    config: DietVanillaModelConfig
    photometric_loss = "rgb_loss_fine"

    @property
    def semantic_outputs(self) -> tuple[str, ...]:
        """The colour outputs that the semantic loss compares."""
        both = ("rgb_coarse", "rgb_fine")
        return {"both": both, "coarse": both[:1], "fine": both[1:]}[self.config.semantic_renders]

    def gradient_inputs(self) -> list[Tensor]:
        """What a step's gradients are taken of: the parameters."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @contextlib.contextmanager
    def fewer_samples(self, fraction: float) -> Iterator[None]:
        """Render with a fraction of the coarse and of the additional fine samples along a ray, inside."""
        samplers = (self.sampler_uniform, self.sampler_pdf)
        counts = [sampler.num_samples for sampler in samplers]
        for sampler, count in zip(samplers, counts, strict=True):
            sampler.num_samples = max(1, round(fraction * count))
        try:
            yield
        finally:
            for sampler, count in zip(samplers, counts, strict=True):
                sampler.num_samples = count

    def populate_modules(self) -> None:
        """Build nerfstudio's vanilla NeRF, sampling from the near plane in evaluation too."""
        with lpips_replaced_by(LazyLPIPS):
            super().populate_modules()
        self.collider.reset_near_plane = False
        for network in (self.field_coarse, self.field_fine):
            network.position_encoding = positional_encoding(10)
            network.direction_encoding = positional_encoding(4)

    def get_outputs(self, ray_bundle: RayBundle) -> dict:
        """Coarse and fine outputs; the fine ones also under the names that every other model uses."""
        outputs = super().get_outputs(ray_bundle)
        return outputs | {name: outputs[f"{name}_fine"] for name in ("rgb", "accumulation", "depth")}

    def get_image_metrics_and_images(self, outputs, batch):
        """vanilla NeRF's metrics; the fine render's also under the common names."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        metrics |= {name: metrics[f"fine_{name}"] for name in ("ssim", "lpips")}
        return without_missing(metrics, self.lpips), images
