"""A roofline model of training: the least time that each part of a step needs at the machine's measured limits.

The bound is the slower one of computing the operations and moving the bytes. Operations are the matrix products and
convolutions of the networks, counted by torch on the torch implementation, whichever kernels are used. Bytes are those
that fused kernels cannot avoid, moved at the speed of a copy: the features gathered from planes or hash tables (read
forward; read and written backward), the encoder's weights, and what Adam reads and writes.

The render of a semantic view is bounded for the rays that were rendered, as `split_semantic_step` counts them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.field_components.encodings import Encoding
from nerfstudio.models.base_model import Model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dietnerf_ns.bench.speed.candidate import Candidate, Data, semantic_training_of
from dietnerf_ns.fields.encoded import EncodedField
from dietnerf_ns.fields.planes import MultiResolutionTriplanes
from dietnerf_ns.models.base import proposal_updates_kept
from dietnerf_ns.models.nerfacto import DietNeRFModel
from dietnerf_ns.semantic.consistency import SemanticConsistency
from dietnerf_ns.semantic.rendering import evaluation_mode
from dietnerf_ns.semantic.sample_positions import SamplePositions

FLOAT_BYTES = 4
PLANE_POINTS, VOXEL_POINTS = 3 * 4, 8
"""Grid points that a feature is interpolated from: four on each of three planes, or the eight corners of a voxel."""
ADAM_PASSES = 7
"""Adam reads a parameter, its gradient and two moments, and writes the parameter and the moments."""
RENDER, RENDER_AGAIN, GRADIENT = "render", "render again", "gradient"
"""What is counted for a ray of a semantic view."""
COUNTED_RAYS = 64
COPIED_FLOATS = {"cpu": 2**25, "cuda": 2**28}
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
REPETITIONS = 10


def device_limits(device: torch.device) -> dict[str, float]:
    """Measure the bandwidth of copies and the rate of matrix products, as medians.

    Returns:
        `bytes_per_second` (read and written) and `operations_per_second` (in float16 on CUDA, in float32 on a CPU).
    """
    source = torch.ones(COPIED_FLOATS[device.type], device=device)
    target = torch.empty_like(source)
    side = MATRIX_SIDE[device.type]
    matrix = torch.ones(side, side, device=device, dtype=torch.float16 if device.type == "cuda" else torch.float32)
    copied = 2 * source.numel() * FLOAT_BYTES
    return {
        "bytes_per_second": copied / _seconds(lambda: target.copy_(source), device),
        "operations_per_second": 2 * side**3 / _seconds(lambda: matrix @ matrix, device),
    }


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(REPETITIONS + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def roofline(candidate: Candidate, data: Data, folder: Path, *, size: int) -> dict:
    """Least milliseconds of a plain step and of the encoder in a semantic step, and the costs of a ray of its view.

    Args:
        candidate: a method with the semantic loss and `DietNeRFModel`.
        data: the photos to train on.
        folder: folder of nerfstudio's logs.
        size: shorter side of the semantic view in pixels.

    Returns:
        `limits` of the device, `size`, and `parts`: `operations`, `bytes` and `milliseconds` of each part; `per_ray`:
        `operations` and `bytes`, see `costs_of_a_ray`.
    """
    trainer = candidate.trainer(data, folder)
    semantic, model = semantic_training_of(trainer)
    assert isinstance(model, DietNeRFModel), type(model).__name__
    limits = device_limits(torch.device(trainer.pipeline.device))
    semantic.reconfigure(resolution=size, crop=1.0)
    counted = {"plain step": plain_step(model, candidate.rays), **encoder_parts(semantic)}
    per_ray = costs_of_a_ray(model, sample_fraction=semantic.config.sample_fraction)
    return {
        "limits": limits,
        "size": size,
        "parts": {name: _part(costs, limits) for name, costs in counted.items()},
        "per_ray": {name: {"operations": costs[0], "bytes": costs[1]} for name, costs in per_ray.items()},
    }


def render_parts(floor: dict, renders: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Operations, bytes and least milliseconds of rendering views and of its gradient, as medians over the views.

    Args:
        floor: what `roofline` returned.
        renders: the views, as `split_semantic_step` counted their rays.
    """
    costs = {name: np.array([cost["operations"], cost["bytes"]]) for name, cost in floor["per_ray"].items()}
    forward = [render["rays"] * costs[RENDER] for render in renders]
    backward = [
        render["again"] * costs[RENDER_AGAIN] + render["rays" if render["kept"] else "again"] * costs[GRADIENT]
        for render in renders
    ]
    return {
        "render forward": _part(np.median(forward, axis=0).tolist(), floor["limits"]),
        "render backward": _part(np.median(backward, axis=0).tolist(), floor["limits"]),
    }


def _part(costs: Sequence[float], limits: dict[str, float]) -> dict[str, float]:
    operations, moved = costs
    milliseconds = least_milliseconds(operations, moved, limits)
    return {"operations": operations, "bytes": moved, "milliseconds": milliseconds}


def least_milliseconds(operations: float, moved: float, limits: dict[str, float]) -> float:
    """The longer one of the times for computing and for moving, which can overlap.

    Args:
        operations: number of floating-point operations.
        moved: number of bytes.
        limits: as `device_limits` returns them.
    """
    return 1000 * max(operations / limits["operations_per_second"], moved / limits["bytes_per_second"])


class OperationCounter(TorchDispatchMode):
    """Counts floating-point operations of matrix products and convolutions with torch's own formulas."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def plain_step(model: DietNeRFModel, rays: int) -> tuple[float, float]:
    """Operations and bytes of the photometric loss of a batch of rays, its gradient and Adam's update.

    Proposal networks are evaluated at every step. Most steps do not train them, and neither does this one.
    """
    twin = torch_twin(model).train()
    with proposal_updates_kept(twin):
        operations = rays * operations_per_ray(twin, backward=True)
    trained = [p for name, p in model.named_parameters() if p.requires_grad and "proposal_networks" not in name]
    by_field, by_proposals = gathered_per_ray(model)
    return operations, rays * (3 * by_field + by_proposals) + ADAM_PASSES * _bytes_of(trained)


def encoder_parts(semantic: SemanticConsistency) -> dict[str, tuple[float, float]]:
    """Operations and bytes of the encoder in a semantic step."""
    view, encoder = semantic.sample_view(0), cast(Any, semantic.encoder)
    image = torch.rand(1, 3, *view.size, device=semantic.device, requires_grad=True)
    with OperationCounter() as counter:
        similarity = semantic.similarity(image, view.target_index)
        forward = counter.total
        similarity.sum().backward()
    weights = _bytes_of(encoder.network.parameters())
    return {"encoder forward": (forward, weights), "encoder backward": (counter.total - forward, weights)}


def costs_of_a_ray(model: DietNeRFModel, *, sample_fraction: float) -> dict[str, tuple[float, float]]:
    """Operations and bytes of a ray of a semantic view.

    Args:
        model: that renders it.
        sample_fraction: number of samples along the ray relative to a training ray.

    Returns:
        Those of rendering it, of rendering it once more for its gradient, and of the gradient itself.
    """
    with model.scaled_samples(sample_fraction):
        by_field, by_proposals = gathered_per_ray(model)
    twin = torch_twin(model)
    with evaluation_mode(twin), twin.scaled_samples(sample_fraction):
        forward = operations_per_ray(twin, backward=False)
        return {
            RENDER: (forward, by_field + by_proposals),
            RENDER_AGAIN: (operations_per_ray_again(twin), by_field),
            GRADIENT: (operations_per_ray(twin, backward=True) - forward, 2 * by_field),
        }


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def torch_twin(model: DietNeRFModel) -> DietNeRFModel:
    """The same model with torch's implementation on the CPU, where operations can be counted."""
    config = replace(model.config, implementation="torch")
    box = SceneBox(model.scene_box.aabb.cpu())
    return config.setup(scene_box=box, num_train_data=model.num_train_data, **(model.kwargs | {"device": "cpu"}))


def operations_per_ray(model: Model, *, backward: bool) -> float:
    """Floating-point operations of the networks for one ray, forward only or with the backward pass."""
    return _operations(model, _rays_with_samples(), backward=backward)


def operations_per_ray_again(model: Model) -> float:
    """Floating-point operations of the networks for one ray that is rendered a second time, at the same samples."""
    positions = SamplePositions(model, COUNTED_RAYS)
    rays = positions.numbered(_rays_with_samples())
    with torch.no_grad(), positions.noted():
        model(rays)
    with positions.used():
        return _operations(model, rays, backward=False)


def _rays_with_samples() -> RayBundle:
    directions = torch.nn.functional.normalize(torch.rand(COUNTED_RAYS, 3), dim=-1)
    return RayBundle(
        origins=torch.zeros(COUNTED_RAYS, 3),
        directions=directions,
        pixel_area=torch.full((COUNTED_RAYS, 1), 1e-4),
        camera_indices=torch.zeros(COUNTED_RAYS, 1, dtype=torch.long),
        # Rays with ends of their own get samples wherever they are.
        nears=torch.ones(COUNTED_RAYS, 1),
        fars=torch.full((COUNTED_RAYS, 1), 2.0),
    )


def _operations(model: Model, rays: RayBundle, *, backward: bool) -> float:
    with OperationCounter() as counter, torch.set_grad_enabled(backward):
        outputs = model(rays)
        if backward:
            kept = [*outputs.get("weights_list", []), outputs["rgb"]]
            torch.stack([output.sum() for output in kept]).sum().backward()
    return counter.total / COUNTED_RAYS


def gathered_per_ray(model: DietNeRFModel) -> tuple[int, int]:
    """Bytes of features that the field, and that the proposal networks read for one ray."""
    sampler, field, density_fns = model.proposal_sampler, cast(EncodedField, model.field), cast(list, model.density_fns)
    by_proposals = (
        samples * gathered_per_sample(_encoding_of(density.__self__))
        for samples, density in zip(sampler.num_proposal_samples_per_ray, density_fns, strict=True)
    )
    return sampler.num_nerf_samples_per_ray * gathered_per_sample(field.encoding), sum(by_proposals)


def gathered_per_sample(encoding: Encoding | MultiResolutionTriplanes) -> int:
    """Bytes of the features that are read to interpolate at one position."""
    points = PLANE_POINTS if isinstance(encoding, MultiResolutionTriplanes) else VOXEL_POINTS
    return points * encoding.get_out_dim() * _feature_bytes(encoding)


def _feature_bytes(encoding: Encoding | MultiResolutionTriplanes) -> int:
    fused = getattr(encoding, "tcnn_encoding", None)
    # tinycudann keeps its weights in full precision, and reads a copy in the precision that it computes in.
    return next(encoding.parameters()).element_size() if fused is None else fused.dtype.itemsize


def _encoding_of(proposal_network: Any) -> Encoding | MultiResolutionTriplanes:
    return proposal_network.encoding if hasattr(proposal_network, "encoding") else proposal_network.mlp_base[0]
