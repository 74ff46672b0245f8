import pytest
import torch

from dietnerf_ns.semantic.loss import cosine_similarity, semantic_consistency_loss


def test_hand_computed_values():
    renders = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    target = torch.tensor([0.8, 0.6])
    similarity = cosine_similarity(renders, target)
    assert similarity.tolist() == pytest.approx([0.8, 0.96])
    # 0.1 * (1 - 0.8) + 0.1 * (1 - 0.96): lambda counts per render
    assert float(semantic_consistency_loss(similarity, weight=0.1)) == pytest.approx(0.024)


def test_equal_embeddings_cost_nothing():
    target = torch.nn.functional.normalize(torch.randn(8), dim=0)
    assert float(semantic_consistency_loss(cosine_similarity(target[None], target), weight=3.0)) == pytest.approx(
        0, abs=1e-6
    )


def test_the_cosine_is_in_full_precision_under_autocast():
    renders = torch.nn.functional.normalize(torch.randn(2, 512, generator=torch.Generator().manual_seed(0)), dim=-1)
    exact = cosine_similarity(renders, renders[1])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cosine_similarity(renders, renders[1]), exact)


def test_half_precision_embeddings_are_compared_in_full_precision():
    target = torch.nn.functional.normalize(torch.randn(512), dim=0).half()
    assert cosine_similarity(target[None], target).dtype == torch.float32
