"""The semantic consistency loss (Jain et al., ICCV 2021, arXiv 2104.00677, section 4.1)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def cosine_similarity(
    renders: Float[Tensor, "num_renders dim"], target: Float[Tensor, "dim"]
) -> Float[Tensor, "num_renders"]:
    """phi(render) . phi(photo) for unit embeddings, in float32, in [-1, 1]."""
    return (renders.float() * target.float()).sum(dim=-1)  # no matrix product: autocast would do that in half precision


def semantic_consistency_loss(similarity: Float[Tensor, "num_renders"], *, weight: float) -> Float[Tensor, ""]:
    """L_sc = sum over renders of weight * (1 - phi(render) . phi(photo)).

    The paper's L_sc up to a constant: it writes -phi . phi for normalised embeddings. lambda counts per render, so
    that the coarse and the fine render of a view each contribute with the full weight, as in the paper's code.

    Args:
        similarity: cosine similarity of each render of one view with the view's target photo.
        weight: lambda, at least 0.

    Returns:
        A scalar in [0, 2 * weight * num_renders].
    """
    return weight * (1 - similarity).sum()
