"""Keeps the semantic gradient in proportion to the photometric one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def limit_gradient(
    loss: Float[Tensor, ""],
    reference: Float[Tensor, ""],
    parameters: Sequence[nn.Parameter],
    *,
    ratio: float,
    loss_scale: float = 1.0,
) -> Float[Tensor, ""]:
    """The same loss with a gradient at most `ratio` times as long as the reference's.

    An explicit grid with a large learning rate can paint texture that pleases the encoder and no eye; in the paper an
    MLP's smoothness stood in the way. Both gradients are taken here, so that one backward pass of the result only adds
    the (scaled) first to the parameters.

    Args:
        loss: the loss to limit.
        reference: the loss to compare with.
        parameters: whose gradients are compared, all together; those that a loss does not reach count as 0.
        ratio: largest allowed norm of the gradient of `loss` over that of `reference`.
        loss_scale: factor on both losses while they are differentiated, against underflow in half precision.
    """
    gradients = _gradients(loss.float() * loss_scale, parameters)
    reference_norm = _norm(_gradients(reference.float() * loss_scale, parameters))
    scale = (ratio * reference_norm / _norm(gradients).clamp_min(1e-30)).clamp_max(1) / loss_scale
    pairs = zip(gradients, parameters, strict=True)
    product = scale * sum((gradient * parameter).sum() for gradient, parameter in pairs)
    return loss.detach() + product - product.detach()


def _gradients(loss: Float[Tensor, ""], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    # Generated planes belong to both graphs, so that none may be freed.
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]


def _norm(gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
    return torch.stack([gradient.float().norm() for gradient in gradients]).norm()
