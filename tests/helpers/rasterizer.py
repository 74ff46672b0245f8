"""A stand-in for gsplat's rasteriser, which is CUDA code: differentiable, in torch, for a few Gaussians on a CPU."""

from __future__ import annotations

import torch

SH_OF_A_COLOUR = 0.28209479177387814


def rasterization(
    *, means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, render_mode, sh_degree, **_
):
    """Round Gaussians of the mean of their three scales, blended without an order, in the form that gsplat returns.

    A pixel's alpha is one minus the product of what Gaussians let through; its colour is their mean, weighted.
    """
    in_camera = means @ viewmats[0, :3, :3].T + viewmats[0, :3, 3]
    depths = in_camera[:, 2].clamp_min(near_plane)
    on_image = in_camera @ Ks[0].T
    means2d = (on_image[:, :2] / depths[:, None])[None]
    radii = scales.mean(dim=-1) * Ks[0, 0, 0] / depths + 0.5
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).reshape(-1, 1, 2)
    distances = (pixels - means2d).square().sum(dim=-1)
    visible = opacities * (in_camera[:, 2] > near_plane)
    weights = 0.99 * visible * torch.exp(-distances / (2 * radii.square()))
    alphas = 1 - torch.exp(torch.log1p(-weights).sum(dim=-1, keepdim=True))
    values = colors if sh_degree is None else 0.5 + SH_OF_A_COLOUR * colors[:, 0]
    if render_mode == "RGB+ED":
        values = torch.cat([values, depths[:, None]], dim=-1)
    blended = alphas * (weights @ values) / weights.sum(dim=-1, keepdim=True).clamp_min(1e-8)
    info = {"means2d": means2d, "radii": radii.detach()[None], "width": width, "height": height, "n_cameras": 1}
    image = blended.reshape(1, height, width, -1), alphas.reshape(1, height, width, 1)
    return *image, info | {"gaussian_ids": None}
