"""What a semantic step saw, as one picture: the render, its target photo, what the encoder wants changed."""

from __future__ import annotations

import base64
import io

import torch
from jaxtyping import Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.utils.colormaps import apply_float_colormap
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from dietnerf_ns.semantic.consistency import Blend, SemanticStep

GAP_PX = 4


class SemanticVisualization:
    """Pictures of semantic steps.

    Args:
        photos: the kept training views.
        blend: puts an RGBA photo on the background that the model renders; leaves RGB as it is.
    """

    def __init__(self, photos: InputDataset, blend: Blend):
        self._photos, self._blend = photos, blend

    def side_by_side(self, step: SemanticStep, *, height: int | None = None) -> Float[Tensor, "height width 3"]:
        """Render, target photo and gradient map from left to right, RGB in [0, 1], on the CPU.

        Args:
            step: after its backward pass.
            height: of the picture in pixels; the render's when not given.
        """
        render = step.renders[-1].cpu()  # of coarse and fine the fine one
        images = [render, self._photo(step.view.target_index)]
        if step.gradient is not None:
            images.append(gradient_map(step.gradient[-1].cpu()))
        tiles = [pad(_resized(image, height or render.shape[1]), (0, GAP_PX), value=1.0) for image in images]
        return torch.cat(tiles, dim=2)[:, :, :-GAP_PX].permute(1, 2, 0).clamp(0, 1)

    def caption(self, step: SemanticStep) -> str:
        """What the images of `side_by_side` are, from left to right."""
        name = self._photos.image_filenames[step.view.target_index].name
        return f"render, target photo {name}, strength of dL_sc/dpixel"

    def _photo(self, index: int) -> Float[Tensor, "3 height width"]:
        return self._blend(self._photos.get_image_float32(index)).permute(2, 0, 1)


def gradient_map(gradient: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 height width"]:
    """How strongly the loss asks each pixel to change: norm over RGB, black for none to yellow for the picture's most.

    Args:
        gradient: of the loss with respect to a render's RGB, in any unit.
    """
    strength = gradient.float().norm(dim=0)
    relative = strength / strength.max().clamp_min(torch.finfo(torch.float32).tiny)
    return apply_float_colormap(relative[..., None], "inferno").permute(2, 0, 1)


def data_url(picture: Float[Tensor, "height width 3"]) -> str:
    """An RGB picture in [0, 1] as an address that carries it, JPEG-compressed."""
    file = io.BytesIO()
    Image.fromarray((picture * 255).round().byte().numpy()).save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _resized(image: Float[Tensor, "3 h w"], height: int) -> Float[Tensor, "3 height width"]:
    """Shrunk smoothly, or enlarged so that pixels stay visible."""
    width = max(1, round(image.shape[2] * height / image.shape[1]))
    if height < image.shape[1]:
        return interpolate(image[None], (height, width), mode="area")[0]
    return interpolate(image[None], (height, width), mode="nearest-exact")[0]
