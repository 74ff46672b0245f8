"""A full view with gradients, in chunks of rays whose activations are recomputed instead of kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.models.base_model import Model
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint


def view_camera(reference: Cameras, camera_to_world: Float[Tensor, "3 4"], resolution: int) -> Cameras:
    """A pinhole camera at a new pose with the intrinsics of a training camera.

    Args:
        reference: one training camera, shape [1].
        camera_to_world: the new pose, OpenGL axes.
        resolution: length of the shorter image side in pixels; the aspect ratio is kept.
    """
    width, height = int(reference.width[0]), int(reference.height[0])
    scale = resolution / min(width, height)
    new_width, new_height = round(width * scale), round(height * scale)
    return Cameras(
        camera_to_worlds=camera_to_world[None],
        fx=reference.fx[0] * new_width / width,
        fy=reference.fy[0] * new_height / height,
        cx=reference.cx[0] * new_width / width,
        cy=reference.cy[0] * new_height / height,
        width=new_width,
        height=new_height,
        camera_type=CameraType.PERSPECTIVE,
    )


def view_rays(camera: Cameras, generator: Generator, *, crop: float = 1.0) -> tuple[RayBundle, tuple[int, int]]:
    """One ray per pixel, at a random place inside it (paper's code: jittered rays).

    Args:
        camera: one camera, shape [1].
        generator: source of the jitter and of the crop's position.
        crop: side of the random window that is rendered, as a fraction of the image side, in (0, 1].

    Returns:
        The flat ray bundle in row-major order, and the window's (height, width).
    """
    height, width = int(camera.height[0]), int(camera.width[0])
    window = max(1, round(height * crop)), max(1, round(width * crop))
    top = int(torch.randint(height - window[0] + 1, (), generator=generator))
    left = int(torch.randint(width - window[1] + 1, (), generator=generator))
    corners = camera.get_image_coords(pixel_offset=0.0)[top : top + window[0], left : left + window[1]].reshape(-1, 2)
    coords = corners + torch.rand(corners.shape, generator=generator)
    indices = torch.zeros(len(coords), 1, dtype=torch.long)
    return camera.generate_rays(camera_indices=indices, coords=coords, keep_shape=False), window


@contextlib.contextmanager
def seen_as_in_the_viewer(model: Model) -> Iterator[None]:
    """Evaluate the model although it trains, with gradients.

    In evaluation mode nerfstudio's models leave the camera optimiser out, use the average appearance and sample
    without noise. The proposal sampler counts forward passes to schedule its own updates: its count is put back.
    """
    sampler = getattr(model, "proposal_sampler", None)
    count = getattr(sampler, "_steps_since_update", None)
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
        if count is not None:
            sampler._steps_since_update = count


def render_view(
    model: Model,
    rays: RayBundle,
    size: tuple[int, int],
    *,
    output_names: Sequence[str] = ("rgb",),
    rays_per_chunk: int = 4096,
    recompute: bool = True,
    mixed_precision: bool = False,
) -> Float[Tensor, "num_outputs 3 height width"]:
    """Render a view so that gradients reach the field.

    Args:
        model: a nerfstudio model; its training mode is the same afterwards.
        rays: flat bundle, row-major, on the model's device.
        size: the view's (height, width).
        output_names: colour outputs of the model to return.
        rays_per_chunk: rays rendered at once; with `recompute` memory grows with this and not with the size.
        recompute: checkpoint each chunk (paper: "dropping intermediate activations"), at the cost of a second
            forward pass; without it every activation of the view is kept.
        mixed_precision: render in bfloat16, as a memory saving of its own; without effect when training itself is in
            mixed precision, and so the render.

    Returns:
        RGB in [0, 1], one image per output name.
    """
    device_type = rays.origins.device.type
    own_autocast = mixed_precision and not torch.is_autocast_enabled(device_type)

    def render_chunk(chunk: RayBundle) -> tuple[Tensor, ...]:
        precision = torch.autocast(device_type, torch.bfloat16) if own_autocast else contextlib.nullcontext()
        with seen_as_in_the_viewer(model), precision:
            outputs = model(chunk)
        return tuple(outputs[name] for name in output_names)

    chunks = [rays[i : i + rays_per_chunk] for i in range(0, len(rays), rays_per_chunk)]
    if recompute:
        rendered = [checkpoint(render_chunk, chunk, use_reentrant=False) for chunk in chunks]
    else:
        rendered = [render_chunk(chunk) for chunk in chunks]
    images = [torch.cat(parts).reshape(*size, 3) for parts in zip(*rendered, strict=True)]
    return torch.stack(images).permute(0, 3, 1, 2).float()
