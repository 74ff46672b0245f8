"""Bilinear interpolation of feature planes, and their total variation: most of what a training step costs on a CPU."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag, grid_sample

AXES_OF_PLANES = ((0, 1), (0, 2), (1, 2))
"""Axes of space along the columns and along the rows of each plane: xy, xz, yz."""

Planes = Float[Tensor, "3 side side channels"]
"""Features at the grid points of the planes xy, xz and yz. Rows are along the second axis of a plane, columns along the
first. The features of a point are adjacent in memory, which is what makes reading them fast."""


def channels_last(planes: Float[Tensor, "3 channels side side"]) -> Planes:
    """Planes in the order of images, which torch's convolutions have, in the order in which they are looked up."""
    return planes.permute(0, 2, 3, 1).contiguous()


def interpolate(planes: Planes, positions: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
    """The features of three planes at the projections of positions, summed.

    On a CPU a lookup of whole feature vectors replaces `grid_sample`, whose result it equals up to rounding: it is
    several times as fast.

    Args:
        planes: features at the grid points.
        positions: in the cube [-1, 1]^3, whose faces are the outermost grid points. Gradients with respect to positions
            are computed if they need any.
    """
    if planes.device.type == "cpu" and not (positions.requires_grad and torch.is_grad_enabled()):
        return cast(Tensor, _Lookup.apply(planes, *_corners(positions, planes.shape[1])))
    on_planes = torch.stack([positions[:, axes] for axes in AXES_OF_PLANES])[:, :, None]
    # torch leaves this padding to no cuDNN, which rejects sizes that rendering an image needs.
    features = grid_sample(planes.permute(0, 3, 1, 2), on_planes, padding_mode="border", align_corners=True)
    return features.sum(0).squeeze(-1).T


def _corners(positions: Float[Tensor, "n 3"], side: int) -> tuple[Int[Tensor, "n corners"], Float[Tensor, "n corners"]]:
    """Of each position, the four nearest grid points on each of three planes, and their weights.

    Returns:
        Indices into the grid points of all planes, which are numbered plane by plane and row by row; and the weights.
    """
    on_grid = (positions.detach().T.contiguous() + 1) * ((side - 1) / 2)
    low = on_grid.floor().clamp_(0, side - 2)
    after = (on_grid - low).clamp_(0, 1)
    before, low = 1 - after, low.int()
    indices, weights = [], []
    for plane, (column, row) in enumerate(AXES_OF_PLANES):
        first = low[row] * side + low[column] + plane * side**2
        indices += [first, first + 1, first + side, first + side + 1]
        weights += [before[column] * before[row], after[column] * before[row]]
        weights += [before[column] * after[row], after[column] * after[row]]
    return torch.stack(indices, dim=1), torch.stack(weights, dim=1)


class _Lookup(torch.autograd.Function):
    """Weighted sums of the feature vectors of grid points.

    The sums are a product with a sparse matrix. torch's own gradients of such products are slow on a CPU; scipy's
    product with the transposed matrix is not.
    """

    @staticmethod
    def forward(
        ctx: Any, planes: Planes, indices: Int[Tensor, "n corners"], weights: Float[Tensor, "n corners"]
    ) -> Float[Tensor, "n channels"]:
        ctx.shape = planes.shape
        ctx.save_for_backward(indices, weights)
        return embedding_bag(indices, planes.flatten(0, 2), per_sample_weights=weights, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "n channels"]) -> tuple[Planes, None, None]:
        indices, weights = ctx.saved_tensors
        starts = np.arange(0, indices.numel() + 1, indices.shape[1], dtype=np.int32)
        shape = len(indices), ctx.shape[:3].numel()
        matrix = csr_matrix((weights.numpy().ravel(), indices.numpy().ravel(), starts), shape=shape)
        return torch.from_numpy(matrix.T @ gradient.numpy()).view(ctx.shape), None, None


def total_variation(planes: Planes) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring grid points along rows, and that along columns, summed.

    Differentiable once. The gradient is computed together with the value: with the matrix L of the grid's discrete
    Laplace operator, the value is proportional to f^T L f and its gradient to 2 L f.
    """
    return cast(Tensor, _TotalVariation.apply(planes))


class _TotalVariation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Planes) -> Float[Tensor, ""]:
        laplacian = torch.empty_like(planes)
        for plane, of_plane in zip(planes, laplacian, strict=True):  # one after the other: a plane fits a cache
            _laplacian(plane, out=of_plane)
        ctx.laplacian, ctx.differences = laplacian, planes[:, 1:].numel()
        return torch.dot(planes.flatten(), laplacian.flatten()) / ctx.differences

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, ""]) -> Planes:
        laplacian, ctx.laplacian = ctx.laplacian, None
        assert laplacian is not None, "the gradient is computed in place, and once"
        return laplacian.mul_(gradient * (2 / ctx.differences))


def _laplacian(plane: Float[Tensor, "side side channels"], *, out: Float[Tensor, "side side channels"]) -> None:
    """For each grid point, the sum of its differences from its neighbours."""
    torch.mul(plane, 4, out=out)
    for values, results in ((plane, out), (plane.transpose(0, 1), out.transpose(0, 1))):
        results[1:] -= values[:-1]
        results[:-1] -= values[1:]
        results[0] -= values[0]
        results[-1] -= values[-1]
