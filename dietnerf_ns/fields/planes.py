"""Feature planes: fast without CUDA, and smooth where few photos say little."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import TriplaneEncoding
from nerfstudio.fields.density_fields import HashMLPDensityField
from torch import Tensor, nn
from torch.nn.functional import grid_sample, mse_loss

from dietnerf_ns.fields.encoded import two_layer_mlp
from dietnerf_ns.fields.generator import PlaneGenerator


class Triplane(TriplaneEncoding):
    """nerfstudio's tri-plane, features always summed, with gradients to positions, which correct camera poses."""

    def forward(self, in_tensor: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch num_components"]:
        """Features at positions in [-1, 1]^3."""
        positions = in_tensor.reshape(-1, 3)
        on_planes = torch.stack([positions[:, [0, 1]], positions[:, [0, 2]], positions[:, [1, 2]]])[:, :, None]
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN has refused the sizes that rendering an image needs
            features = grid_sample(self.plane_coef, on_planes, align_corners=True)  # 3 x num_components x positions x 1
        return features.sum(0).squeeze(-1).T.reshape(*in_tensor.shape[:-1], self.num_components)


class MultiResolutionTriplanes(nn.Module):
    """Tri-planes at several resolutions, the features of the three planes summed, the levels side by side.

    Args:
        resolutions: cells along a plane's side, one tri-plane per entry.
        channels: features per resolution.
        initial_scale: standard deviation of the features before training.
    """

    def __init__(self, resolutions: Sequence[int], channels: int, initial_scale: float):
        super().__init__()
        self.levels = nn.ModuleList(
            Triplane(resolution, channels, init_scale=initial_scale) for resolution in resolutions
        )
        self.channels = channels

    def get_out_dim(self) -> int:
        """Features per position."""
        return self.channels * len(self.levels)

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
        return sum(
            mse_loss(plane[:, :, 1:], plane[:, :, :-1]) + mse_loss(plane[..., 1:], plane[..., :-1]) for plane in planes
        )


class GeneratedTriplanes(MultiResolutionTriplanes):
    """The same tri-planes as the output of a network that is optimised in their place; see `PlaneGenerator`.

    They are generated at their first use after `forget`, and shared by all uses until then.

    Args:
        resolution: of the finest planes, see `PlaneGenerator`.
        num_levels: how many tri-planes.
        channels: features per resolution.
    """

    def __init__(self, resolution: int, num_levels: int, channels: int):
        generator = PlaneGenerator(resolution=resolution, levels=num_levels, channels=channels)
        super().__init__(generator.resolutions, channels, initial_scale=0)
        self.generator = generator
        for level in self.levels:
            del level.plane_coef
        self.forget()

    def forget(self) -> None:
        """The generator has changed: generate the planes anew when they are needed next."""
        self._generated = self._differentiable = False

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch out_dim"]:
        """Features at positions in the unit cube [0, 1]^3."""
        self._generate()
        return super().forward(positions)

    def planes(self) -> list[Float[Tensor, "3 channels resolution resolution"]]:
        """The planes of this step, from coarse to fine, with gradients to the generator."""
        self._generate()
        return [level.plane_coef for level in self.levels]

    def total_variation(self) -> Float[Tensor, ""]:
        """See `MultiResolutionTriplanes.total_variation`."""
        self._generate()
        return super().total_variation()

    def _generate(self) -> None:
        if self._generated and (self._differentiable or not torch.is_grad_enabled()):
            return
        with torch.autocast(self.generator.noise.device.type, enabled=False):  # features in full precision
            generated = self.generator()
        for level, planes in zip(self.levels, generated, strict=True):
            level.plane_coef = planes
        self._generated, self._differentiable = True, torch.is_grad_enabled()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Take the checkpoint's resolutions, as the free planes do; they follow from the noise."""
        saved = state_dict.get(f"{prefix}generator.noise")
        if saved is not None:
            self.generator.noise = torch.empty_like(saved, device=self.generator.noise.device)
        self.forget()
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)


class PlaneDensityField(HashMLPDensityField):
    """nerfacto's proposal density on tri-planes instead of a hash grid.

    Args:
        resolution: cells along a plane's side.
        channels: features per cell.
        initial_scale: standard deviation of the features before training.
        density_arguments: everything else `HashMLPDensityField` takes.
    """

    def __init__(
        self,
        *args,
        resolution: int,
        channels: int,
        initial_scale: float,
        hidden_dim: int = 16,
        implementation: str,
        **density_arguments,
    ):
        smallest_hash = {"num_levels": 1, "log2_hashmap_size": 1}
        super().__init__(
            *args, hidden_dim=hidden_dim, implementation=implementation, **smallest_hash, **density_arguments
        )
        planes = MultiResolutionTriplanes([resolution], channels, initial_scale)
        self.mlp_base = nn.Sequential(planes, two_layer_mlp(planes.get_out_dim(), hidden_dim, 1, implementation))
        del self.encoding
