"""Gradients of two losses, taken one after the other, and a limit on one relative to the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Gradients = list[Tensor | None]
"""One for each tensor; None where the loss does not depend on it."""


def gradients_of(loss: Float[Tensor, ""], tensors: Sequence[Tensor], *, loss_scale: float = 1.0) -> Gradients:
    """Gradients of a loss. Its activations are freed, so that those of another loss fit in their place.

    Args:
        loss: any scalar that depends on some of the tensors.
        tensors: what to differentiate with respect to.
        loss_scale: factor on the loss while it is differentiated, against underflow in half precision.
    """
    if not loss.requires_grad:  # of a view in which a model rendered nothing that can be trained
        return [None] * len(tensors)
    with torch.autocast(loss.device.type, enabled=False):  # as a trainer does: backward passes know nothing of autocast
        scaled = torch.autograd.grad(loss.float() * loss_scale, tensors, allow_unused=True)
    return [None if gradient is None else gradient / loss_scale for gradient in scaled]


def limit_norm(gradients: Gradients, reference: Gradients, *, ratio: float) -> Gradients:
    """The same gradients, scaled together so that their norm is at most `ratio` times the reference's.

    An explicit grid with a large learning rate can produce texture that pleases the encoder and no eye; in the paper
    the smoothness of an MLP prevents this.

    Args:
        gradients: what is limited.
        reference: gradients of the same tensors; only those that `gradients` reach count.
        ratio: largest allowed norm of the result over that of the reference; 0 for no limit.
    """
    reached = [i for i, gradient in enumerate(gradients) if gradient is not None]
    if ratio == 0 or not reached:
        return gradients
    reference_norm = _norm([reference[i] for i in reached])
    scale = (ratio * reference_norm / _norm([gradients[i] for i in reached]).clamp_min(1e-30)).clamp_max(1)
    return [None if gradient is None else scale * gradient for gradient in gradients]


def add_gradients(first: Gradients, second: Gradients) -> Gradients:
    """The sum of the gradients of two losses."""
    return [b if a is None else a if b is None else a + b for a, b in zip(first, second, strict=True)]


def with_gradients(value: Float[Tensor, ""], gradients: Gradients, tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    """A scalar of the given value whose backward pass yields gradients that are already known."""
    return _KnownGradients.apply(value, gradients, *tensors)


def _norm(gradients: Gradients) -> Float[Tensor, ""]:
    norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


class _KnownGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor, gradients: Gradients, *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, factor: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if gradient is None else factor * gradient for gradient in ctx.gradients)
