"""A full view rendered with gradients, in chunks of rays whose activations are recomputed instead of kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import cast

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.models.base_model import Model
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable

from dietnerf_ns.models.base import SemanticModel, proposal_updates_kept
from dietnerf_ns.models.rasterized import RasterizedModel
from dietnerf_ns.semantic.sample_positions import SamplePositions
from dietnerf_ns.utils.compat import replaced
from dietnerf_ns.utils.errors import UserError

RenderRays = Callable[[RayBundle], tuple[Float[Tensor, "num_rays num_renders 3"], Bool[Tensor, "num_rays 1"]]]
"""Colours of rays, and whether a gradient is taken through each."""


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


def window_of(camera: Cameras, generator: Generator, *, crop: float = 1.0, square: bool = False) -> Cameras:
    """A camera that sees a window of the image.

    Args:
        camera: one camera, shape [1].
        generator: random numbers for the window's position.
        crop: side of the window as a fraction of the image side, in (0, 1].
        square: whether only the central square of this window is kept.
    """
    height, width = int(camera.height[0]), int(camera.width[0])
    window = max(1, round(height * crop)), max(1, round(width * crop))
    top = int(torch.randint(height - window[0] + 1, (), generator=generator))
    left = int(torch.randint(width - window[1] + 1, (), generator=generator))
    if square:
        side = min(window)
        top, left, window = top + (window[0] - side) // 2, left + (window[1] - side) // 2, (side, side)
    return Cameras(
        camera_to_worlds=camera.camera_to_worlds,
        fx=camera.fx,
        fy=camera.fy,
        cx=camera.cx - left,
        cy=camera.cy - top,
        width=window[1],
        height=window[0],
        camera_type=camera.camera_type,
    )


def view_rays(camera: Cameras, generator: Generator) -> RayBundle:
    """One ray for each pixel, at a random position inside the pixel.

    Args:
        camera: one camera, shape [1]; rays are made on its device.
        generator: random numbers for the position, on the CPU.

    Returns:
        The flat ray bundle in row-major order.
    """
    rows, columns = (torch.arange(int(n[0]), device=camera.device) for n in (camera.height, camera.width))
    corners = torch.cartesian_prod(rows, columns)  # pixels x (row, column)
    coords = corners + torch.rand(corners.shape, generator=generator).to(camera.device, non_blocking=True)
    indices = torch.zeros(len(coords), 1, dtype=torch.long, device=camera.device)
    rays = camera.generate_rays(camera_indices=indices, coords=coords, keep_shape=False)
    # Both are parts of tensors several times their size, which they would keep alive.
    rays.origins, rays.directions = rays.origins.clone(), rays.directions.clone()
    return rays


@contextlib.contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Render as in evaluation while the model trains, with gradients.

    In evaluation mode nerfstudio's models ignore the camera optimizer, use the average appearance and sample without
    noise. The schedule of proposal networks goes on as without the view. The near plane holds as for the photos: in
    front of it, where nerfstudio samples in evaluation, nothing opposes what the semantic loss paints there.
    """
    was_training, collider = model.training, getattr(model, "collider", None)
    model.eval()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(proposal_updates_kept(model))
            if isinstance(collider, NearFarCollider):
                stack.enter_context(replaced(collider, "reset_near_plane", False))
            yield
    finally:
        model.train(was_training)


def render_image(model: RasterizedModel, camera: Cameras) -> Float[Tensor, "num_renders 3 height width"]:
    """Render a view of a model that rasterises, so that gradients reach it.

    Args:
        model: its training mode is the same afterwards.
        camera: of the view, shape [1], on the model's device.

    Returns:
        RGB in [0, 1].
    """
    with evaluation_mode(model), model.rendering_unseen_view():
        outputs = cast(dict[str, Tensor], model.get_outputs(camera))
    return torch.stack([colours.permute(2, 0, 1) for colours, _ in model.semantic_renders(outputs)]).float()


def render_view(
    model: SemanticModel,
    rays: RayBundle,
    size: tuple[int, int],
    *,
    rays_per_chunk: int = 4096,
    recompute: bool = True,
    sample_fraction: float = 1.0,
) -> Float[Tensor, "num_renders 3 height width"]:
    """Render a view so that gradients reach the field.

    Args:
        model: its training mode is the same afterwards.
        rays: flat bundle, row-major, on the model's device.
        size: the view's (height, width).
        rays_per_chunk: number of rays rendered at once; with `recompute` memory grows with it and not with the size.
        recompute: keep no activations and render again in the backward pass (paper: "dropping intermediate
            activations"), unless all rays that may hit something fit in one chunk; without it every activation of the
            view is kept.
        sample_fraction: number of samples along a ray relative to a training ray.

    Returns:
        RGB in [0, 1], one image for each of the model's semantic renders.

    Raises:
        UserError: the model has no such outputs.
    """
    render = _ray_renderer(model, rays.origins.device.type, sample_fraction)
    with evaluation_mode(model):
        hit = model.may_hit(rays)
    chosen = None if hit is None else hit.nonzero()[:, 0]
    seen = rays if chosen is None else rays[chosen]
    if recompute and len(seen) > rays_per_chunk:
        positions = SamplePositions(model, len(seen))
        colours = cast(Tensor, _Recomputed.apply(render, positions, seen, rays_per_chunk, *model.gradient_inputs()))
    else:
        colours, _ = _in_chunks(render, seen, rays_per_chunk)
    if chosen is not None:
        empty = model.background.to(colours).expand(len(rays), colours.shape[1], 3)
        colours = empty.index_copy(0, chosen, colours)
    return colours.reshape(*size, -1, 3).permute(2, 3, 0, 1).float()


def _ray_renderer(model: SemanticModel, device_type: str, sample_fraction: float) -> RenderRays:
    # The backward pass knows nothing of autocast; and a cached half-precision weight may lack its gradient.
    precision = {
        "dtype": torch.get_autocast_dtype(device_type),
        "enabled": torch.is_autocast_enabled(device_type),
        "cache_enabled": False,
    }

    def render(rays: RayBundle) -> tuple[Tensor, Tensor]:
        with evaluation_mode(model), model.scaled_samples(sample_fraction), torch.autocast(device_type, **precision):
            outputs = model(model.rays_of_unseen_view(rays))
        try:
            colours, opacities = zip(*model.semantic_renders(outputs), strict=True)
        except KeyError as error:
            raise UserError(
                f"The semantic loss needs the output {error}; the model has {', '.join(outputs)}."
            ) from error
        opacity = torch.stack(opacities).detach().amax(dim=0)
        return torch.stack(colours, dim=1), (opacity > model.faint) | model.shows_last_sample

    return render


def _in_chunks(render: RenderRays, rays: RayBundle, rays_per_chunk: int) -> tuple[Tensor, Tensor]:
    rendered = [render(rays[i : i + rays_per_chunk]) for i in range(0, len(rays), rays_per_chunk)]
    colours, with_gradient = zip(*rendered, strict=True)
    return torch.cat(colours), torch.cat(with_gradient)


class _Recomputed(torch.autograd.Function):
    """Colours of rays without their activations; the backward pass renders the rays again, chunk by chunk.

    The samples are where they were, so that proposal networks are evaluated once.

    `torch.utils.checkpoint` is not enough: tinycudann's modules keep activations in a context of their own that lives
    as long as the forward pass's autograd node, so that memory would still grow with the size of the view.
    """

    @staticmethod
    def forward(
        ctx, render: RenderRays, positions: SamplePositions, rays: RayBundle, rays_per_chunk: int, *inputs: Tensor
    ) -> Tensor:
        rays = positions.numbered(rays)
        with positions.noted():
            colours, with_gradient = _in_chunks(render, rays, rays_per_chunk)
        ctx.render, ctx.positions, ctx.inputs = render, positions, inputs
        ctx.rays, ctx.rays_per_chunk = rays, rays_per_chunk
        ctx.seen = with_gradient[:, 0].nonzero()[:, 0]
        return colours

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        totals: list[Tensor | None] = [None] * len(ctx.inputs)
        for chunk in ctx.seen.split(ctx.rays_per_chunk) if len(ctx.seen) > 0 else ():
            with torch.enable_grad(), ctx.positions.used():
                colours, _ = ctx.render(ctx.rays[chunk])
            parts = torch.autograd.grad(colours, ctx.inputs, gradient[chunk], allow_unused=True)
            totals = [total if part is None else _add(total, part) for total, part in zip(totals, parts, strict=True)]
        return None, None, None, None, *totals


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    return part.clone() if total is None else total.add_(part)
