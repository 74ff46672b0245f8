"""Feature planes as a scene representation: fast without CUDA, and smooth where few photos constrain the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import Encoding, TriplaneEncoding
from nerfstudio.fields.density_fields import HashMLPDensityField
from torch import Tensor, nn
from torch.nn.functional import grid_sample, mse_loss

from dietnerf_ns.fields.encoded import two_layer_mlp


class Triplane(TriplaneEncoding):
    """nerfstudio's tri-plane with summed features and with gradients to positions, which the camera optimizer needs."""

    def forward(self, in_tensor: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch num_components"]:
        """Features at positions in [-1, 1]^3."""
        positions = in_tensor.reshape(-1, 3)
        on_planes = torch.stack([positions[:, [0, 1]], positions[:, [0, 2]], positions[:, [1, 2]]])[:, :, None]
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN rejects sizes that rendering an image needs
            features = grid_sample(self.plane_coef, on_planes, align_corners=True)  # 3 x num_components x positions x 1
        return features.sum(0).squeeze(-1).T.reshape(*in_tensor.shape[:-1], self.num_components)


class MultiResolutionTriplanes(Encoding):
    """Tri-planes at several resolutions; the features of three planes are summed, those of the levels concatenated.

    Args:
        resolutions: grid points along a plane's side, one tri-plane for each entry, from coarse to fine.
        channels: features per resolution.
        initial_scale: standard deviation of the features before training.
    """

    def __init__(self, resolutions: Sequence[int], channels: int, initial_scale: float):
        super().__init__(in_dim=3)
        self.levels = nn.ModuleList(
            Triplane(resolution, channels, init_scale=initial_scale) for resolution in resolutions
        )
        self.channels = channels

    def get_out_dim(self) -> int:
        """Features per position."""
        return self.channels * len(self.levels)

    def planes(self) -> list[Float[Tensor, "3 channels _side _side"]]:
        """The features of every level, from coarse to fine."""
        return [cast(Tensor, level.plane_coef) for level in self.levels]

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch out_dim"]:
        """Features at positions in the unit cube [0, 1]^3."""
        return torch.cat([level(2 * positions - 1) for level in self.levels], dim=-1)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Take the checkpoint's resolutions: those of the configuration may follow from images that are absent."""
        for index, plane in enumerate(self.planes()):
            saved = state_dict.get(f"{prefix}levels.{index}.plane_coef")
            if saved is not None and saved.shape != plane.shape:
                plane.data = torch.empty_like(saved, device=plane.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

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
        variations = (
            mse_loss(plane[:, :, 1:], plane[:, :, :-1]) + mse_loss(plane[..., 1:], plane[..., :-1])
            for plane in self.planes()
        )
        return cast(Tensor, sum(variations))


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
