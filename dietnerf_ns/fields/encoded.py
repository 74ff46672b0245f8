"""nerfacto's field on any encoding with levels, of which finer ones can be let in bit by bit."""

from __future__ import annotations

from nerfstudio.field_components.encodings import Encoding
from nerfstudio.field_components.mlp import MLP
from nerfstudio.fields.nerfacto_field import NerfactoField
from torch import Tensor, nn

from dietnerf_ns.fields.level_mask import LevelMask


class EncodedField(NerfactoField):
    """nerfacto's field with another encoding in place of its hash grid.

    Args:
        encoding: positions in the unit cube to features, level beside level from coarse to fine.
        num_levels: of the encoding.
        position_gradients: whether anything needs gradients with respect to positions (camera poses, normals). nerfacto
            always takes them, at a good part of a step's cost.
        nerfacto_arguments: everything else `NerfactoField` takes.
    """

    def __init__(
        self,
        *args,
        encoding: Encoding,
        num_levels: int,
        position_gradients: bool,
        hidden_dim: int = 64,
        implementation: str,
        **nerfacto_arguments,
    ):
        smallest_hash = {"num_levels": 1, "log2_hashmap_size": 1}
        super().__init__(
            *args, hidden_dim=hidden_dim, implementation=implementation, **smallest_hash, **nerfacto_arguments
        )
        mlp = two_layer_mlp(encoding.get_out_dim(), hidden_dim, 1 + self.geo_feat_dim, implementation)
        layers = encoding, LevelMask(num_levels), mlp
        self.mlp_base = nn.Sequential(*layers) if position_gradients else ConstantInput(*layers)

    @property
    def encoding(self) -> Encoding:
        """What turns positions into features."""
        return self.mlp_base[0]

    @property
    def level_mask(self) -> LevelMask:
        """How much of each level is let in."""
        return self.mlp_base[1]


class ConstantInput(nn.Sequential):
    """Layers whose input is a constant to autograd."""

    def forward(self, input: Tensor) -> Tensor:
        """Pass the input through all layers."""
        return super().forward(input.detach())


def two_layer_mlp(in_dim: int, width: int, out_dim: int, implementation: str) -> MLP:
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
