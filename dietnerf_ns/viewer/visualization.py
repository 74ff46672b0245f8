"""A semantic step as one image: the rendered view, its target photo, and the gradient of L_sc on the render."""

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

from dietnerf_ns.semantic.consistency import SemanticStep
from dietnerf_ns.utils.images import Blend
from dietnerf_ns.viewer.elements import escaped

GAP_PX = 4


class SemanticVisualization:
    """Draws semantic steps.

    Args:
        photos: the kept training views.
        blend: function that blends an RGBA photo with the model's background and returns an RGB photo unchanged.
    """

    def __init__(self, photos: InputDataset, blend: Blend):
        self._photos, self._blend = photos, blend

    def side_by_side(self, step: SemanticStep, *, height: int | None = None) -> Float[Tensor, "height width 3"]:
        """Draw render, target photo and gradient map from left to right.

        Args:
            step: a semantic step. Before its backward pass there is no gradient map.
            height: height of the image in pixels. None takes the render's.

        Returns:
            RGB in [0, 1] on the CPU.
        """
        render = step.renders[-1].cpu()  # a model with a coarse and a fine network lists the fine render last
        images = [render, self._photo(step.view.target_index)]
        if step.gradient is not None:
            images.append(gradient_map(step.gradient[-1].cpu()))
        tiles = [pad(_resized(image, height or render.shape[1]), (0, GAP_PX), value=1.0) for image in images]
        return torch.cat(tiles, dim=2)[:, :, :-GAP_PX].permute(1, 2, 0).clamp(0, 1)

    def caption(self, step: SemanticStep) -> str:
        """Name the images of `side_by_side` from left to right, in Markdown."""
        name = escaped(self._photos.image_filenames[step.view.target_index].name)
        return f"render, target photo {name}, strength of dL_sc/dpixel"

    def _photo(self, index: int) -> Float[Tensor, "3 height width"]:
        return self._blend(self._photos.get_image_float32(index)).permute(2, 0, 1)


def gradient_map(gradient: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 height width"]:
    """Colour each pixel by the norm of the loss's gradient over RGB.

    Args:
        gradient: gradient of the loss with respect to the render's RGB; the scale does not matter.

    Returns:
        RGB in [0, 1]: black where the gradient is 0, yellow where it is largest in the image.
    """
    strength = gradient.float().norm(dim=0)
    relative = strength / strength.max().clamp_min(torch.finfo(torch.float32).tiny)
    return apply_float_colormap(relative[..., None], "inferno").permute(2, 0, 1)


def data_url(image: Float[Tensor, "height width 3"]) -> str:
    """Encode an RGB image in [0, 1] on the CPU as a data URL with JPEG compression."""
    file = io.BytesIO()
    Image.fromarray((image * 255).round().byte().numpy()).save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _resized(image: Float[Tensor, "3 h w"], height: int) -> Float[Tensor, "3 height width"]:
    """Resize to a height: averaged when shrunk, with visible pixels when enlarged."""
    width = max(1, round(image.shape[2] * height / image.shape[1]))
    if height < image.shape[1]:
        return interpolate(image[None], (height, width), mode="area")[0]
    return interpolate(image[None], (height, width), mode="nearest-exact")[0]
