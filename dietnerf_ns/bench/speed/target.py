"""Training time until a given PSNR is reached on views that are not trained on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.trainer import Trainer
from torch import Tensor

from dietnerf_ns.bench.speed.candidate import Candidate, Data, train_step
from dietnerf_ns.semantic.rendering import evaluation_mode

PIXELS = 4096
"""Number of pixels, at random places in all test views, over which PSNR is computed."""


def time_to_psnr(
    candidate: Candidate, data: Data, folder: Path, *, psnr: float, max_seconds: float, seconds_between: float
) -> dict:
    """Train until a PSNR is reached on test views or the time is over.

    Args:
        candidate: the method to train.
        data: the photos to train on.
        folder: folder of nerfstudio's logs.
        psnr: PSNR in dB, of the mean squared error over `PIXELS` pixels of the test views.
        max_seconds: maximum of training time. The evaluations of PSNR do not count.
        seconds_between: training time from one evaluation to the next.

    Returns:
        `seconds` and `steps` until the PSNR, or None if it was not reached; `curve`: (seconds, step, dB) of every
        evaluation.
    """
    trainer = candidate.trainer(data, folder)
    rays, colours = sample_test_pixels(trainer)
    total_steps = trainer.config.max_num_iterations
    curve, seconds, step = [], 0.0, 0
    while seconds < max_seconds and step < total_steps:
        evaluate_at = min(seconds + seconds_between, max_seconds)
        while seconds < evaluate_at and step < total_steps:
            started = time.perf_counter()
            train_step(trainer, step)
            _wait(trainer)
            seconds += time.perf_counter() - started
            step += 1
        curve.append((seconds, step, psnr_of(trainer, rays, colours)))
        if curve[-1][2] >= psnr:
            break
    reached = curve[-1][2] >= psnr
    end = {"seconds": seconds if reached else None, "steps": step if reached else None}
    return {"label": candidate.label, "psnr": psnr, "rays": candidate.rays} | end | {"curve": curve}


def sample_test_pixels(trainer: Trainer) -> tuple[RayBundle, Float[Tensor, "num_pixels 3"]]:
    """Rays through the same pixels of the test views in every run, and the colours of these pixels.

    Returns:
        The rays, and RGB in [0, 1] of the photos on the background that the model renders.
    """
    photos: Any = trainer.pipeline.datamanager.eval_dataset
    model: Any = trainer.pipeline.model
    generator = torch.Generator().manual_seed(0)
    owners = torch.randint(len(photos), (PIXELS,), generator=generator)
    sizes = torch.cat([photos.cameras.height, photos.cameras.width], dim=-1)[owners]
    pixels = (torch.rand(PIXELS, 2, generator=generator) * sizes).long()  # rows and columns
    rays = photos.cameras.generate_rays(camera_indices=owners[:, None], coords=pixels + 0.5)
    images = [model.renderer_rgb.blend_background(photos.get_image_float32(i)) for i in range(len(photos))]
    colours = torch.stack([images[i][row, column] for i, (row, column) in zip(owners, pixels, strict=True)])
    return rays.to(trainer.pipeline.device), colours.to(trainer.pipeline.device)


@torch.no_grad()
def psnr_of(trainer: Trainer, rays: RayBundle, colours: Float[Tensor, "num_pixels 3"]) -> float:
    """PSNR in dB of the mean squared error over all pixels.

    Args:
        trainer: trainer of the model to evaluate.
        rays: one ray per pixel.
        colours: RGB in [0, 1].
    """
    model, chunk = trainer.pipeline.model, trainer.config.pipeline.model.eval_num_rays_per_chunk
    with evaluation_mode(model):
        parts = [model(rays[i : i + chunk]) for i in range(0, len(rays), chunk)]
        rendered = torch.cat([part["rgb"] if "rgb" in part else part["rgb_fine"] for part in parts])
    return float(-10 * (rendered - colours).square().mean().log10())


def _wait(trainer: Trainer) -> None:
    if trainer.pipeline.device.type == "cuda":
        torch.cuda.synchronize()
