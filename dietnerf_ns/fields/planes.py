"""Feature planes as a scene representation: fast without CUDA, and smooth where few photos constrain the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import Encoding
from nerfstudio.fields.density_fields import HashMLPDensityField
from torch import Tensor, nn

from dietnerf_ns.fields.encoded import two_layer_mlp
from dietnerf_ns.fields.interpolation import Planes, channels_last, interpolate, total_variation


class Triplane(nn.Module):
    """Three planes whose features are summed.

    nerfstudio's `TriplaneEncoding` keeps the channels first and has no gradients to positions.

    Args:
        side: grid points along a plane's side.
        channels: features per grid point.
        initial_scale: standard deviation of the features before training.
    """

    features: Planes

    def __init__(self, side: int, channels: int, initial_scale: float):
        super().__init__()
        self.features = nn.Parameter(channels_last(initial_scale * torch.randn(3, channels, side, side)))

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch channels"]:
        """Features at positions in [-1, 1]^3."""
        return interpolate(self.features, positions.reshape(-1, 3)).reshape(*positions.shape[:-1], -1)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Take the checkpoint's size: that of the configuration may follow from images that are absent."""
        saved = state_dict.get(f"{prefix}features")
        if saved is not None and saved.shape != self.features.shape:
            self.features.data = torch.empty_like(saved, device=self.features.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


class MultiResolutionTriplanes(Encoding):
    """Tri-planes at several resolutions; the features of three planes are summed, those of the levels concatenated.

    Args:
        resolutions: grid points along a plane's side, one tri-plane for each entry, from coarse to fine.
        channels: features per resolution.
        initial_scale: standard deviation of the features before training.
    """

    def __init__(self, resolutions: Sequence[int], channels: int, initial_scale: float):
        super().__init__(in_dim=3)
        self.levels = nn.ModuleList(Triplane(resolution, channels, initial_scale) for resolution in resolutions)
        self.channels = channels

    def get_out_dim(self) -> int:
        """Features per position."""
        return self.channels * len(self.levels)

    def planes(self) -> list[Planes]:
        """The features of every level, from coarse to fine."""
        return [cast(Tensor, level.features) for level in self.levels]

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch out_dim"]:
        """Features at positions in the unit cube [0, 1]^3."""
        return torch.cat([level(2 * positions - 1) for level in self.levels], dim=-1)

    def optimizer_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters with an optimizer of their own, by the optimizer's name."""
        return {}

    def gradient_inputs(self, parameters: list[Tensor]) -> list[Tensor]:
        """The tensors that a step's gradients are taken with respect to.

        Args:
            parameters: trainable parameters of the whole model.
        """
        return parameters

    def end_step(self) -> None:
        """The optimizers have taken a step."""

    def total_variation(self) -> Float[Tensor, ""]:
        """Sum over levels of the mean squared difference of neighbouring grid points, along both axes of a plane."""
        return cast(Tensor, sum(total_variation(plane) for plane in self.planes()))


class PlaneDensityField(HashMLPDensityField):
    """nerfacto's proposal density on tri-planes instead of a hash grid.

    Args:
        resolution: grid points along a plane's side.
        channels: features per grid point.
        initial_scale: standard deviation of the features before training.
        density_arguments: the other arguments of `HashMLPDensityField`.
    """

    def __init__(
        self,
        *args,
        resolution: int,
        channels: int,
        initial_scale: float,
        hidden_dim: int = 16,
        implementation: Literal["tcnn", "torch"],
        **density_arguments,
    ):
        smallest_hash = {"num_levels": 1, "log2_hashmap_size": 1}
        super().__init__(
            *args, hidden_dim=hidden_dim, implementation=implementation, **smallest_hash, **density_arguments
        )
        planes = MultiResolutionTriplanes([resolution], channels, initial_scale)
        self.mlp_base = nn.Sequential(planes, two_layer_mlp(planes.get_out_dim(), hidden_dim, 1, implementation))
        del self.encoding
