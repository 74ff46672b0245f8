"""A radiance field on feature planes: fast without CUDA, and smooth where few photos say little."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import TriplaneEncoding
from nerfstudio.field_components.mlp import MLP
from nerfstudio.fields.density_fields import HashMLPDensityField
from nerfstudio.fields.nerfacto_field import NerfactoField
from torch import Tensor, nn

INITIAL_SCALE = 0.1


class MultiResolutionTriplanes(nn.Module):
    """Tri-planes at several resolutions, the features of the three planes summed, the levels side by side.

    Args:
        resolutions: cells along a plane's side, one tri-plane per entry.
        channels: features per resolution.
    """

    def __init__(self, resolutions: Sequence[int], channels: int):
        super().__init__()
        self.levels = nn.ModuleList(
            TriplaneEncoding(resolution, channels, init_scale=INITIAL_SCALE) for resolution in resolutions
        )
        self.out_dim = channels * len(resolutions)

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch out_dim"]:
        """Features at positions in the unit cube [0, 1]^3."""
        return torch.cat([level(2 * positions - 1) for level in self.levels], dim=-1)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Take the checkpoint's resolutions: those of this configuration may follow from images that are not here."""
        for index, level in enumerate(self.levels):
            saved = state_dict.get(f"{prefix}levels.{index}.plane_coef")
            if saved is not None and saved.shape != level.plane_coef.shape:
                level.plane_coef.data = torch.empty_like(saved, device=level.plane_coef.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def total_variation(self) -> Float[Tensor, ""]:
        """Sum over levels of the mean squared difference of neighbouring plane cells, along both axes of a plane."""
        planes = [level.plane_coef for level in self.levels]  # each 3 x channels x resolution x resolution
        return sum(plane.diff(dim=2).square().mean() + plane.diff(dim=3).square().mean() for plane in planes)


class PlaneField(NerfactoField):
    """nerfacto's field on tri-planes instead of a hash grid.

    Args:
        resolutions: see `MultiResolutionTriplanes`.
        channels: see `MultiResolutionTriplanes`.
        nerfacto_arguments: everything else `NerfactoField` takes.
    """

    def __init__(
        self,
        *args,
        resolutions: Sequence[int],
        channels: int,
        hidden_dim: int = 64,
        implementation: str,
        **nerfacto_arguments,
    ):
        smallest_hash = {"num_levels": 1, "log2_hashmap_size": 1}
        super().__init__(
            *args, hidden_dim=hidden_dim, implementation=implementation, **smallest_hash, **nerfacto_arguments
        )
        planes = MultiResolutionTriplanes(resolutions, channels)
        self.mlp_base = _planes_then_mlp(planes, hidden_dim, 1 + self.geo_feat_dim, implementation)

    @property
    def planes(self) -> MultiResolutionTriplanes:
        """The feature planes."""
        return self.mlp_base[0]


class PlaneDensityField(HashMLPDensityField):
    """nerfacto's proposal density on tri-planes instead of a hash grid.

    Args:
        resolution: cells along a plane's side.
        channels: features per cell.
        density_arguments: everything else `HashMLPDensityField` takes.
    """

    def __init__(
        self, *args, resolution: int, channels: int, hidden_dim: int = 16, implementation: str, **density_arguments
    ):
        smallest_hash = {"num_levels": 1, "log2_hashmap_size": 1}
        super().__init__(
            *args, hidden_dim=hidden_dim, implementation=implementation, **smallest_hash, **density_arguments
        )
        planes = MultiResolutionTriplanes([resolution], channels)
        self.mlp_base = _planes_then_mlp(planes, hidden_dim, 1, implementation)
        del self.encoding


def _planes_then_mlp(planes: MultiResolutionTriplanes, width: int, out_dim: int, implementation: str) -> nn.Sequential:
    mlp = MLP(
        in_dim=planes.out_dim,
        num_layers=2,
        layer_width=width,
        out_dim=out_dim,
        activation=nn.ReLU(),
        out_activation=None,
        implementation=implementation,
    )
    return nn.Sequential(planes, mlp)
