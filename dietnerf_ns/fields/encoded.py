"""nerfacto's field on any encoding with levels, whose finer levels can be enabled gradually."""

from __future__ import annotations

from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.encodings import Encoding
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.field_components.mlp import MLP
from nerfstudio.fields.nerfacto_field import NerfactoField
from torch import Tensor, nn

from dietnerf_ns.fields.density_grid import DensityGrid
from dietnerf_ns.fields.level_mask import LevelMask

MIN_WEIGHT = 1e-4
Places = tuple[Int[Tensor, "chosen"], ...]
"""Numbers along each axis of some samples. Masks would be searched anew for each tensor that they choose from."""


class EncodedField(NerfactoField):
    """nerfacto's field with another encoding in place of its hash grid.

    Args:
        encoding: maps positions in the unit cube to features, the levels side by side from coarse to fine.
        num_levels: number of levels of the encoding.
        position_gradients: whether gradients with respect to positions are needed (camera poses, normals). nerfacto
            always computes them, which is a good part of a step's cost.
        nerfacto_arguments: the other arguments of `NerfactoField`.
    """

    colors_visible_only: bool = False
    """For images without gradients: whether only the colours of samples that can be seen are computed, and those of the
    last samples, which may be the background. The others are black, and change a pixel by less than 0.0001 each."""
    occupied_in: DensityGrid | None = None
    """For the same images: a grid of this field's density. Samples where it is empty have no density."""

    def __init__(
        self,
        *args,
        encoding: Encoding,
        num_levels: int,
        position_gradients: bool,
        hidden_dim: int = 64,
        implementation: Literal["tcnn", "torch"],
        **nerfacto_arguments,
    ):
        smallest_hash = {"num_levels": 1, "log2_hashmap_size": 1}
        super().__init__(
            *args, hidden_dim=hidden_dim, implementation=implementation, **smallest_hash, **nerfacto_arguments
        )
        mlp = two_layer_mlp(encoding.get_out_dim(), hidden_dim, 1 + self.geo_feat_dim, implementation)
        layers = encoding, LevelMask(num_levels), mlp
        self.mlp_base = nn.Sequential(*layers) if position_gradients else ConstantInput(*layers)

    def forward(self, ray_samples: RaySamples, compute_normals: bool = False) -> dict[FieldHeadNames, Tensor]:
        """Densities and colours of samples.

        Args:
            ray_samples: of shape [num_rays, num_samples].
            compute_normals: whether normals are computed as well.
        """
        if not self.colors_visible_only or compute_normals:
            return super().forward(ray_samples, compute_normals)
        occupied = at_least_one(self._occupied(ray_samples)).nonzero(as_tuple=True)
        samples = _chosen(ray_samples, occupied)
        density_of_samples, features = self.get_density(samples)
        density = _placed(density_of_samples, occupied, ray_samples.shape)
        visible = ray_samples.get_weights(density)[..., 0] >= MIN_WEIGHT
        visible[:, -1] = True
        seen = at_least_one(visible[occupied]).nonzero(as_tuple=True)
        outputs = self.get_outputs(_chosen(samples, seen), features[seen])
        places = tuple(numbers[seen] for numbers in occupied)
        of_all = {name: _placed(value, places, ray_samples.shape) for name, value in outputs.items()}
        return of_all | {FieldHeadNames.DENSITY: density}

    def _occupied(self, samples: RaySamples) -> Bool[Tensor, "num_rays num_samples"]:
        """Which samples may have a density."""
        if self.occupied_in is None:
            return torch.ones(samples.shape, dtype=torch.bool, device=samples.frustums.origins.device)
        return self.occupied_in.may_be_seen_at(samples.frustums.get_positions())

    @property
    def encoding(self) -> Encoding:
        """Maps positions in the unit cube to features."""
        return cast(Encoding, self.mlp_base[0])

    @property
    def level_mask(self) -> LevelMask:
        """Weights the features of each level."""
        return cast(LevelMask, self.mlp_base[1])


class ConstantInput(nn.Sequential):
    """Layers without gradients to their input."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.detach())


def two_layer_mlp(in_dim: int, width: int, out_dim: int, implementation: Literal["tcnn", "torch"]) -> MLP:
    """nerfacto's density network: one hidden layer."""
    return MLP(
        in_dim=in_dim,
        num_layers=2,
        layer_width=width,
        out_dim=out_dim,
        activation=nn.ReLU(),
        out_activation=None,
        implementation=implementation,
    )


def at_least_one(chosen: Bool[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
    """The same, or the first one if there are none, because nerfstudio cannot render nothing. Changed in place."""
    chosen.view(-1)[0] |= ~chosen.any()
    return chosen


def _chosen(samples: RaySamples, places: Places) -> RaySamples:
    """What a field needs of some samples, flat."""
    if len(places[0]) == samples.size:
        return samples.flatten()
    assert samples.camera_indices is not None
    return RaySamples(samples.frustums[places], camera_indices=samples.camera_indices[places])


def _placed(values: Float[Tensor, "chosen channels"], places: Places, shape: tuple[int, ...]) -> Tensor:
    """Values at some places among samples of a shape, and 0 at all others."""
    of_all = values.new_zeros(*shape, values.shape[-1])
    of_all[places] = values
    return of_all
