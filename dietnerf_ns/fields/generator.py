"""Feature planes as the output of an untrained network: a prior without data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dietnerf_ns.utils.errors import UserError

UPSAMPLINGS = 3
MAX_LEVELS = UPSAMPLINGS + 1
NOISE_CHANNELS = 64


class PlaneGenerator(nn.Module):
    """A small convolutional network that turns fixed noise into feature planes of several resolutions.

    Fitting the network instead of the planes keeps them natural where no photo says anything (deep image prior,
    Ulyanov et al. 2018; on the planes of a radiance field: ZeroRF, Shi et al., arXiv 2312.09249). Every upsampling
    doubles the resolution; the last ones each have a head that puts out planes.

    Args:
        resolution: smallest acceptable side of the finest planes; the true one is the next multiple of 8.
        levels: how many resolutions come out, each half the next finer one, at most 4.
        channels: features per plane.
        width: channels at the coarse end of the network; the fine end has a quarter.

    Raises:
        UserError: more than 4 levels.
    """

    def __init__(self, *, resolution: int, levels: int, channels: int, width: int = 64):
        super().__init__()
        if levels > MAX_LEVELS:
            raise UserError(f"--pipeline.model.plane-levels {levels}: generated-planes have at most {MAX_LEVELS}.")
        coarsest = -(-resolution // 2**UPSAMPLINGS)
        self.register_buffer("noise", torch.randn(3, NOISE_CHANNELS, coarsest, coarsest))
        widths = [round(width * 4 ** (-stage / UPSAMPLINGS) / 8) * 8 for stage in range(MAX_LEVELS)]
        ins = [NOISE_CHANNELS, *widths[:-1]]
        self.stages = nn.ModuleList(
            _stage(i, o, upsample=number > 0) for number, (i, o) in enumerate(zip(ins, widths, strict=True))
        )
        self.heads = nn.ModuleList(nn.Conv2d(w, channels, kernel_size=1) for w in widths[-levels:])
        self.resolutions = [coarsest * 2**stage for stage in range(MAX_LEVELS)][-levels:]

    def forward(self) -> list[Float[Tensor, "3 channels side side"]]:
        """Tri-planes from coarse to fine."""
        features, outputs = self.noise, []
        for stage in self.stages:
            features = stage(features)
            outputs.append(features)
        return [head(features) for head, features in zip(self.heads, outputs[-len(self.heads) :], strict=True)]


def _stage(channels_in: int, channels_out: int, *, upsample: bool) -> nn.Sequential:
    layers: Sequence[nn.Module] = [nn.Upsample(scale_factor=2, mode="bilinear")] if upsample else []
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, padding_mode="replicate")
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")  # no normalisation layer: it slows fitting
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(*layers, convolution, nn.SiLU())
