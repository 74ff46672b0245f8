"""What each part of a step must cost at least: its operations and bytes over what the machine is measured to do.

Operations are the matrix products and convolutions of the networks, counted by torch on the torch implementation,
whatever kernels are used. Bytes are those that fused kernels could not avoid, at the speed of a copy: features gathered
from planes or hash tables (read forward; read and written backward) and what Adam passes over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.models.base_model import Model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dietnerf_ns.bench.speed.candidate import Candidate, Data
from dietnerf_ns.fields.planes import MultiResolutionTriplanes
from dietnerf_ns.models.nerfacto import DietNeRFModel
from dietnerf_ns.semantic.consistency import SemanticConsistency
from dietnerf_ns.semantic.rendering import seen_as_in_the_viewer

FLOAT_BYTES = 4
PLANE_CELLS, VOXEL_CELLS = 3 * 4, 8
"""Cells that a feature is interpolated from: four on each of three planes, or the eight corners of a voxel."""
ADAM_PASSES = 7
"""Adam reads a parameter, its gradient and two moments, and writes the parameter and the moments."""
COUNTED_RAYS = 64
COPIED_FLOATS = {"cpu": 2**25, "cuda": 2**28}
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
REPETITIONS = 10


def device_limits(device: torch.device) -> dict[str, float]:
    """Measured copy bandwidth and matrix-product rate; medians.

    Returns:
        `bytes_per_second` (read and written), `operations_per_second` in float16 on CUDA, float32 on a CPU.
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


def floors(candidate: Candidate, data: Data, folder: Path, *, size: int) -> dict:
    """Least milliseconds of a plain step and of the parts of a semantic one.

    Args:
        candidate: with L_sc, on one of this package's plane or hash fields.
        data: what is trained on.
        folder: where nerfstudio writes its logs.
        size: shorter side of the semantic view in pixels.

    Returns:
        `limits` of the device, and `parts`: `operations`, `bytes` and `milliseconds` by part.
    """
    trainer = candidate.trainer(data, folder)
    semantic, model = trainer.pipeline.semantic, trainer.pipeline.model
    limits = device_limits(trainer.pipeline.device)
    semantic.config = replace(semantic.config, resolution=size)
    counted = {
        "plain step": plain_step(model, candidate.rays),
        **semantic_parts(semantic, model),
    }
    parts = {
        name: {
            "operations": operations,
            "bytes": moved,
            "milliseconds": least_milliseconds(operations, moved, limits),
        }
        for name, (operations, moved) in counted.items()
    }
    return {"limits": limits, "size": size, "parts": parts}


def least_milliseconds(operations: float, moved: float, limits: dict[str, float]) -> float:
    """The slower of computing and moving, if both went on at once."""
    return 1000 * max(operations / limits["operations_per_second"], moved / limits["bytes_per_second"])


class OperationCounter(TorchDispatchMode):
    """Floating-point operations of matrix products and convolutions, by torch's own formulas."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def plain_step(model: DietNeRFModel, rays: int) -> tuple[float, float]:
    """Operations and bytes of the photometric loss of a batch, its gradient and Adam's step."""
    operations = rays * operations_per_ray(torch_twin(model).train(), backward=True)
    adam = ADAM_PASSES * FLOAT_BYTES * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return operations, rays * 3 * gathered_per_ray(model) + adam


def semantic_parts(semantic: SemanticConsistency, model: DietNeRFModel) -> dict[str, tuple[float, float]]:
    """Operations and bytes of the parts of a semantic step.

    The render's backward pass computes it once more; counted as if every ray saw something.
    """
    view, twin = semantic.sample_view(0), torch_twin(model)
    rays = len(view.rays)
    image = torch.rand(1, 3, *view.size, device=semantic.device, requires_grad=True)
    with OperationCounter() as counter:
        similarity = semantic.similarity(image, view.target_index)
        forward = counter.total
        similarity.sum().backward()
    weights = FLOAT_BYTES * sum(p.numel() for p in semantic.encoder.network.parameters())
    with seen_as_in_the_viewer(twin), twin.fewer_samples(semantic.config.sample_fraction):
        gathered = gathered_per_ray(twin)
        return {
            "render forward": (rays * operations_per_ray(twin, backward=False), rays * gathered),
            "encoder forward": (forward, weights),
            "encoder backward": (counter.total - forward, weights),
            "render backward": (rays * operations_per_ray(twin, backward=True), rays * 3 * gathered),
        }


def torch_twin(model: DietNeRFModel) -> DietNeRFModel:
    """The same model in torch on the CPU, where operations can be counted."""
    config = replace(model.config, implementation="torch")
    box = SceneBox(model.scene_box.aabb.cpu())
    return config.setup(scene_box=box, num_train_data=model.num_train_data, **(model.kwargs | {"device": "cpu"}))


def operations_per_ray(model: Model, *, backward: bool) -> float:
    """Floating-point operations of the networks for one ray, with or without the gradient on top."""
    directions = torch.nn.functional.normalize(torch.rand(COUNTED_RAYS, 3), dim=-1)
    rays = RayBundle(
        origins=torch.zeros(COUNTED_RAYS, 3),
        directions=directions,
        pixel_area=torch.full((COUNTED_RAYS, 1), 1e-4),
        camera_indices=torch.zeros(COUNTED_RAYS, 1, dtype=torch.long),
    )
    with OperationCounter() as counter, torch.set_grad_enabled(backward):
        outputs = model(rays)
        if backward:
            kept = [*outputs.get("weights_list", []), outputs["rgb"]]
            sum(weights.sum() for weights in kept).backward()
    return counter.total / COUNTED_RAYS


def gathered_per_ray(model: DietNeRFModel) -> float:
    """Bytes of features read for one ray, by proposal networks and field."""
    sampler = model.proposal_sampler
    total = sampler.num_nerf_samples_per_ray * gathered_per_sample(model.field.encoding)
    for samples, density in zip(sampler.num_proposal_samples_per_ray, model.density_fns, strict=True):
        total += samples * gathered_per_sample(_encoding_of(density.__self__))
    return total


def gathered_per_sample(encoding: nn.Module) -> int:
    """Bytes of features that one position is interpolated from."""
    cells = PLANE_CELLS if isinstance(encoding, MultiResolutionTriplanes) else VOXEL_CELLS
    return cells * encoding.get_out_dim() * FLOAT_BYTES


def _encoding_of(proposal_network: nn.Module) -> nn.Module:
    return proposal_network.encoding if hasattr(proposal_network, "encoding") else proposal_network.mlp_base[0]
