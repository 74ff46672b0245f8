"""Feature planes as the output of an untrained network, a prior without data (deep image prior)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dietnerf_ns.fields.interpolation import Planes, channels_last
from dietnerf_ns.fields.planes import MultiResolutionTriplanes
from dietnerf_ns.utils.errors import SettingError

UPSAMPLINGS = 3
MAX_LEVELS = UPSAMPLINGS + 1
NOISE_CHANNELS = 64


class PlaneGenerator(nn.Module):
    """A small convolutional network that turns fixed noise into feature planes of several resolutions.

    Fitting the network instead of the planes keeps them natural where no photo constrains them (deep image prior,
    Ulyanov et al. 2018; on the planes of a radiance field: ZeroRF, Shi et al., arXiv 2312.09249). Every upsampling
    doubles the resolution; each of the last stages has a head that outputs planes.

    Args:
        resolution: smallest acceptable side of the finest planes; the true one is the next multiple of 8.
        levels: number of resolutions, each half the next finer one, at most 4.
        channels: features per plane.
        width: channels at the coarse end of the network; the fine end has a quarter.

    Raises:
        SettingError: more than 4 levels.
    """

    noise: Float[Tensor, "3 noise_channels coarsest coarsest"]

    def __init__(self, *, resolution: int, levels: int, channels: int, width: int = 64):
        super().__init__()
        if levels > MAX_LEVELS:
            raise SettingError("plane_levels", levels, f"generated-planes have at most {MAX_LEVELS} levels.")
        coarsest = max(2, -(-resolution // 2**UPSAMPLINGS))
        self.register_buffer("noise", torch.randn(3, NOISE_CHANNELS, coarsest, coarsest))
        widths = [round(width * 4 ** (-stage / UPSAMPLINGS) / 8) * 8 for stage in range(MAX_LEVELS)]
        ins = [NOISE_CHANNELS, *widths[:-1]]
        self.stages = nn.ModuleList(
            _stage(i, o, upsample=number > 0) for number, (i, o) in enumerate(zip(ins, widths, strict=True))
        )
        self.heads = nn.ModuleList(nn.Conv2d(w, channels, kernel_size=1) for w in widths[-levels:])
        self.resolutions = [coarsest * 2**stage for stage in range(MAX_LEVELS)][-levels:]

    def forward(self) -> list[Float[Tensor, "3 channels _side _side"]]:
        """Tri-planes from coarse to fine."""
        features, outputs = self.noise, []
        for stage in self.stages:
            features = stage(features)
            outputs.append(features)
        return [head(features) for head, features in zip(self.heads, outputs[-len(self.heads) :], strict=True)]


class GeneratedTriplanes(MultiResolutionTriplanes):
    """Tri-planes as the output of a network that is optimised in their place; see `PlaneGenerator`.

    They are generated once per step, at their first use, and shared by all uses in the step.

    Args:
        resolution: of the finest planes, see `PlaneGenerator`.
        num_levels: number of tri-planes.
        channels: features per resolution.
    """

    def __init__(self, resolution: int, num_levels: int, channels: int):
        generator = PlaneGenerator(resolution=resolution, levels=num_levels, channels=channels)
        super().__init__(generator.resolutions, channels, initial_scale=0)
        self.generator = generator
        for level in self.levels:
            del level.features
        self.end_step()

    def end_step(self) -> None:
        """The generator has changed: the planes are generated again at their next use."""
        self._generated = self._differentiable = False

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch out_dim"]:
        """Features at positions in the unit cube [0, 1]^3."""
        self._generate()
        return super().forward(positions)

    def planes(self) -> list[Planes]:
        """The planes of this step, from coarse to fine, with gradients to the generator."""
        self._generate()
        return super().planes()

    def optimizer_groups(self) -> dict[str, list[nn.Parameter]]:
        """The generator has a learning rate of its own."""
        return {"plane_generator": list(self.generator.parameters())}

    def gradient_inputs(self, parameters: list[Tensor]) -> list[Tensor]:
        """The planes of this step in place of the generator's parameters, so that losses share its backward pass."""
        generator = {id(parameter) for parameter in self.generator.parameters()}
        return [*self.planes(), *(parameter for parameter in parameters if id(parameter) not in generator)]

    def _generate(self) -> None:
        if self._generated and (self._differentiable or not torch.is_grad_enabled()):
            return
        with torch.autocast(self.generator.noise.device.type, enabled=False):  # features in full precision
            generated = self.generator()
        for level, planes in zip(self.levels, generated, strict=True):
            level.features = channels_last(planes)
        self._generated, self._differentiable = True, torch.is_grad_enabled()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Take the checkpoint's resolutions, as the free planes do; they follow from the noise."""
        saved = state_dict.get(f"{prefix}generator.noise")
        if saved is not None:
            self.generator.noise = torch.empty_like(saved, device=self.generator.noise.device)
        self.end_step()
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)


def _stage(channels_in: int, channels_out: int, *, upsample: bool) -> nn.Sequential:
    layers: Sequence[nn.Module] = [nn.Upsample(scale_factor=2, mode="bilinear")] if upsample else []
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, padding_mode="replicate")
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")  # no normalisation layer: it slows fitting
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(*layers, convolution, nn.SiLU())
