"""nerfacto's field on any encoding with levels, whose finer levels can be enabled gradually."""

from __future__ import annotations

from typing import Literal, cast

from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.encodings import Encoding
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.field_components.mlp import MLP
from nerfstudio.fields.nerfacto_field import NerfactoField
from torch import Tensor, nn

from dietnerf_ns.fields.level_mask import LevelMask

MIN_WEIGHT = 1e-4


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
        density, features = self.get_density(ray_samples)
        visible = ray_samples.get_weights(density)[..., 0] >= MIN_WEIGHT
        visible[:, -1] = True
        assert ray_samples.camera_indices is not None
        seen = RaySamples(ray_samples.frustums[visible], camera_indices=ray_samples.camera_indices[visible])
        outputs = self.get_outputs(seen, features[visible])
        of_all = {name: value.new_zeros(*visible.shape, value.shape[-1]) for name, value in outputs.items()}
        for name, value in outputs.items():
            of_all[name][visible] = value
        return of_all | {FieldHeadNames.DENSITY: density}

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
