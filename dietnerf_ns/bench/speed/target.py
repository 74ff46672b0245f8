"""How long training takes to a given PSNR on views that are not trained on."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.trainer import Trainer
from torch import Tensor

from dietnerf_ns.bench.speed.candidate import Candidate, Data, train_step
from dietnerf_ns.semantic.rendering import seen_as_in_the_viewer

PIXELS = 4096
"""How many pixels, at random places of all test views, PSNR is taken of."""


def time_to_psnr(
    candidate: Candidate, data: Data, folder: Path, *, psnr: float, most_seconds: float, between_looks: float
) -> dict:
    """Train until a PSNR is reached on test views, or time is over.

    Args:
        candidate: who trains.
        data: what to train on.
        folder: where nerfstudio writes its logs.
        psnr: in dB, of the mean squared error over `PIXELS` pixels of the test views.
        most_seconds: of training; looking at PSNR does not count.
        between_looks: seconds of training from one look to the next.

    Returns:
        `seconds` and `steps` to the PSNR, None if it was not reached; `curve`: (seconds, step, dB) of every look.
    """
    trainer = candidate.trainer(data, folder)
    rays, colours = some_pixels(trainer)
    total_steps = trainer.config.max_num_iterations
    curve, seconds, step = [], 0.0, 0
    while seconds < most_seconds and step < total_steps:
        look_at = min(seconds + between_looks, most_seconds)
        while seconds < look_at and step < total_steps:
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


def some_pixels(trainer: Trainer) -> tuple[RayBundle, Float[Tensor, "num_pixels 3"]]:
    """Rays through pixels of the test views, always the same, and the photos' colours on the model's background.

    Colours are RGB in [0, 1].
    """
    photos = trainer.pipeline.datamanager.eval_dataset
    generator = torch.Generator().manual_seed(0)
    owners = torch.randint(len(photos), (PIXELS,), generator=generator)
    sizes = torch.cat([photos.cameras.height, photos.cameras.width], dim=-1)[owners]
    pixels = (torch.rand(PIXELS, 2, generator=generator) * sizes).long()  # rows and columns
    rays = photos.cameras.generate_rays(camera_indices=owners[:, None], coords=pixels + 0.5)
    blend = trainer.pipeline.model.renderer_rgb.blend_background
    images = [blend(photos.get_image_float32(i)) for i in range(len(photos))]
    colours = torch.stack([images[i][row, column] for i, (row, column) in zip(owners, pixels, strict=True)])
    return rays.to(trainer.pipeline.device), colours.to(trainer.pipeline.device)


@torch.no_grad()
def psnr_of(trainer: Trainer, rays: RayBundle, colours: Float[Tensor, "num_pixels 3"]) -> float:
    """PSNR in dB of the mean squared error over all pixels, RGB in [0, 1]."""
    model, chunk = trainer.pipeline.model, trainer.config.pipeline.model.eval_num_rays_per_chunk
    with seen_as_in_the_viewer(model):
        rendered = torch.cat([model(rays[i : i + chunk])["rgb"] for i in range(0, len(rays), chunk)])
    return float(-10 * (rendered - colours).square().mean().log10())


def _wait(trainer: Trainer) -> None:
    if trainer.pipeline.device.type == "cuda":
        torch.cuda.synchronize()
