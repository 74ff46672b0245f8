"""The cost of a semantic step in operations: a guard against slow code that needs no clock."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dietnerf_ns.models.nerfacto import DietNeRFMember
from dietnerf_ns.semantic.encoders import EncoderConfig
from tests.helpers.encoders import FakeEncoder
from tests.helpers.models import sample_every_ray
from tests.helpers.training import start_training

RAYS_PER_CHUNK = 64


class Operations(TorchDispatchMode):
    """Counts operations that compute, which are those that launch a kernel on a GPU; views cost nothing."""

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
    monkeypatch.setattr(DietNeRFMember, "faint", -1.0)  # every ray is rendered again for its gradient
    sample_every_ray(monkeypatch)
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: CountingEncoder())
    semantic = replace(tiny_pipeline_config.semantic, rays_per_chunk=RAYS_PER_CHUNK)
    pipeline = replace(tiny_pipeline_config, semantic=semantic).setup(device="cpu", test_mode="val")
    start_training(pipeline)
    return pipeline.train()


def semantic_step(pipeline, size: int, **settings) -> dict[str, int]:
    """Counts of one semantic view of size x size pixels, forward and backward."""
    semantic, model = pipeline.semantic, pipeline.model
    semantic.config = replace(semantic.config, resolution=size, **settings)
    counts = {"rays": 0, "field queries": 0, "proposal queries": 0}

    def count(name):
        def hook(_module, inputs):
            counts[name] += len(inputs[0])

        return hook

    hooks = [
        model.register_forward_pre_hook(count("rays")),
        model.field.mlp_base.register_forward_pre_hook(count("field queries")),
        model.proposal_networks[0].mlp_base.register_forward_pre_hook(count("proposal queries")),
    ]
    inputs, calls_before = model.gradient_inputs(), semantic.encoder.calls
    view = semantic.sample_view(0)
    with Operations() as forward:
        renders = semantic.render(model, view)
    similarity = semantic.similarity(renders, view.target_index)
    (on_pixels,) = torch.autograd.grad(similarity.sum(), renders)
    with Operations() as backward:
        torch.autograd.grad(renders, inputs, on_pixels, allow_unused=True)
    for hook in hooks:
        hook.remove()
    counts["encoder calls"] = semantic.encoder.calls - calls_before
    return counts | {"forward": forward.count, "backward": backward.count}


def test_rays_field_queries_and_encoder_calls_of_a_semantic_step(pipeline):
    rays, samples, proposals = 16 * 16, 16, 32  # half of a training ray's
    counts = semantic_step(pipeline, 16)
    assert counts["rays"] == 2 * rays, "once for the image, once for its gradient"
    assert counts["field queries"] == 2 * rays * samples
    assert counts["proposal queries"] == rays * proposals, "the samples stay where they are"
    assert counts["encoder calls"] == 1


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_operations_grow_with_the_chunks_and_with_nothing_else(pipeline, direction):
    four, sixteen, thirty_six = (semantic_step(pipeline, size)[direction] for size in (16, 32, 48))
    per_chunk = (sixteen - four) / 12
    assert thirty_six - sixteen == 20 * per_chunk
    assert four - 4 * per_chunk < 0.1 * per_chunk, "what is done once for the view"


def test_recomputing_costs_one_more_forward_pass(pipeline):
    recomputed = semantic_step(pipeline, 32, checkpoint_render=True)
    kept = semantic_step(pipeline, 32, checkpoint_render=False)
    assert recomputed["forward"] <= 1.01 * kept["forward"], "positions of samples are noted"
    assert recomputed["backward"] <= kept["forward"] + kept["backward"]
