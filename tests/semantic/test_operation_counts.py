"""What a semantic step does, counted: a guard against slow code that no clock is needed for."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dietnerf_ns.semantic import rendering
from tests.helpers.encoders import FakeEncoder

RAYS_PER_CHUNK = 64
COUNTED_WITH_TORCH = "2.15"
OPERATIONS_PER_CHUNK = {"forward": 302, "backward": 386}
OPERATIONS_OF_THE_VIEW = {"forward": 4, "backward": 0}
"""Operations that launch a kernel on a GPU."""


class Operations(TorchDispatchMode):
    """Counts operations that compute; views cost nothing."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


class CountingEncoder(FakeEncoder):
    calls = 0

    def embed(self, inputs):
        self.calls += 1
        return super().embed(inputs)


@pytest.fixture
def pipeline(tiny_pipeline_config, monkeypatch):
    monkeypatch.setattr(rendering, "MIN_OPACITY", -1.0)  # every ray is rendered again for its gradient
    semantic = replace(tiny_pipeline_config.semantic, rays_per_chunk=RAYS_PER_CHUNK)
    pipeline = replace(tiny_pipeline_config, semantic=semantic).setup(device="cpu", test_mode="val")
    pipeline.train()
    pipeline.semantic.encoder = CountingEncoder()
    pipeline.semantic.seed, pipeline.semantic.cameras = 0, pipeline.datamanager.train_dataset.cameras
    pipeline.semantic.targets = torch.eye(3)[:1].expand(8, 3)
    pipeline.semantic._choose_poses()
    return pipeline


def semantic_step(pipeline, size: int) -> dict[str, int]:
    """Counts of one semantic view of size x size pixels, forward and backward."""
    pipeline.semantic.config = replace(pipeline.semantic.config, resolution=size)
    model, counts = pipeline.model, {"rays": 0, "field queries": 0, "proposal queries": 0}

    def count(name, length):
        def hook(_module, inputs):
            counts[name] += length(inputs[0])

        return hook

    hooks = [
        model.register_forward_pre_hook(count("rays", len)),
        model.field.mlp_base.register_forward_pre_hook(count("field queries", len)),
        model.proposal_networks[0].mlp_base.register_forward_pre_hook(count("proposal queries", len)),
    ]
    inputs, calls_before = model.gradient_inputs(), pipeline.semantic.encoder.calls
    view = pipeline.semantic.sample_view(0)
    with Operations() as forward:
        renders = pipeline.semantic.render(model, view)
    similarity = pipeline.semantic.similarity(renders, view.target_index)
    (on_pixels,) = torch.autograd.grad(similarity.sum(), renders)
    with Operations() as backward:
        torch.autograd.grad(renders, inputs, on_pixels, allow_unused=True)
    for hook in hooks:
        hook.remove()
    counts["encoder calls"] = pipeline.semantic.encoder.calls - calls_before
    return counts | {"forward": forward.count, "backward": backward.count}


def test_rays_field_queries_and_encoder_calls_of_a_semantic_step(pipeline):
    rays, samples, proposals = 16 * 16, 12, 24  # half of a training ray's
    counts = semantic_step(pipeline, 16)
    assert counts["rays"] == 2 * rays, "once for the image, once for its gradient"
    assert counts["field queries"] == 2 * rays * samples
    assert counts["proposal queries"] == 2 * rays * proposals
    assert counts["encoder calls"] == 1


def test_operations_grow_with_the_chunks_and_with_nothing_else(pipeline):
    four, sixteen, thirty_six = (semantic_step(pipeline, size) for size in (16, 32, 48))
    for direction in ("forward", "backward"):
        per_chunk = (sixteen[direction] - four[direction]) / 12
        assert thirty_six[direction] - sixteen[direction] == 20 * per_chunk
        if torch.__version__.startswith(COUNTED_WITH_TORCH):
            assert per_chunk == OPERATIONS_PER_CHUNK[direction], direction
            assert four[direction] - 4 * per_chunk == OPERATIONS_OF_THE_VIEW[direction], direction
