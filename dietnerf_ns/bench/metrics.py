"""Image metrics in two conventions that must not be mixed, and semantic similarity.

nerfstudio: what a model computes itself; PSNR, SSIM (torchmetrics, Gaussian 11x11 window), LPIPS (AlexNet, images
scaled to [-1, 1]). paper: as in DietNeRF's released code; PSNR, SSIM (scikit-image, uniform 7x7 window), LPIPS (VGG,
images left in [0, 1]). Metrics are named `convention/metric`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from dietnerf_ns.semantic.consistency import SemanticConfig, make_encoder
from dietnerf_ns.utils.errors import in_one_line

NERFSTUDIO, PAPER, SEMANTIC = "nerfstudio", "paper", "semantic"
Image = Float[Tensor, "height width 3"]
"""RGB in [0, 1]."""
Compare = Callable[[Image, Image], float]


class ImageMetric:
    """One metric whose network is loaded at the first image and may not be there.

    Args:
        name: `convention/metric`.
        load: makes the function that compares a photo with a render.
    """

    def __init__(self, name: str, load: Callable[[], Compare]):
        self.name = name
        self.left_out: dict[str, str] = {}
        self._load = load
        self._compare: Compare | None = None

    def __call__(self, photo: Image, render: Image) -> dict[str, float]:
        """The metric, or nothing if it cannot be computed; `left_out` then says why."""
        if self.left_out:
            return {}
        try:
            self._compare = self._compare or self._load()
            return {self.name: self._compare(photo, render)}
        except Exception as error:  # no network, no weights, image too small: a metric is no reason to lose a run
            self.left_out = {self.name: in_one_line(error)}
            return {}


def image_metrics(similarity: dict[str, Any], device: torch.device) -> list[ImageMetric]:
    """The metrics that are computed for every method alike, in the order of the report.

    Args:
        similarity: settings of the encoder; see `SemanticConfig`.
        device: where networks run.
    """
    return [
        ImageMetric(f"{PAPER}/psnr", lambda: paper_psnr),
        ImageMetric(f"{PAPER}/ssim", lambda: paper_ssim),
        ImageMetric(f"{PAPER}/lpips", lambda: paper_lpips(device)),
        ImageMetric(f"{SEMANTIC}/similarity", lambda: semantic_similarity(similarity, device)),
    ]


def paper_psnr(photo: Image, render: Image) -> float:
    """PSNR in dB of one image; the paper reports the mean of these."""
    return float(peak_signal_noise_ratio(photo.numpy(), render.numpy(), data_range=1))


def paper_ssim(photo: Image, render: Image) -> float:
    """SSIM with a uniform 7x7 window, mean over the channels."""
    return float(structural_similarity(photo.numpy(), render.numpy(), data_range=1, channel_axis=-1))


def paper_lpips(device: torch.device) -> Compare:
    """LPIPS with VGG on images in [0, 1], although the network expects [-1, 1]: lower than correct values."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network = LearnedPerceptualImagePatchSimilarity(net_type="vgg", normalize=False).to(device)
    return lambda photo, render: float(network(as_batch(photo, device), as_batch(render, device)))


def semantic_similarity(similarity: dict[str, Any], device: torch.device) -> Compare:
    """Cosine similarity, in [-1, 1], of the embeddings of photo and render."""
    encoder = make_encoder(SemanticConfig(**similarity), device)

    def compare(photo: Image, render: Image) -> float:
        a, b = (encoder.embed(encoder.preprocess(as_batch(image, device))) for image in (photo, render))
        return float((a * b).sum())

    return compare


def nerfstudio_metrics(numbers: dict[str, Any], model: torch.nn.Module, left_out: dict[str, str]) -> dict[str, float]:
    """A model's own metrics by their full names; those that are no number go to `left_out`."""
    missing = {f"{NERFSTUDIO}/{name}" for name, value in numbers.items() if math.isnan(float(value))}
    reason = getattr(getattr(model, "lpips", None), "missing_because", None)
    if reason is not None:
        missing.add(f"{NERFSTUDIO}/lpips")
    left_out |= {name: reason or "not a number" for name in missing}
    scores = {f"{NERFSTUDIO}/{name}": float(value) for name, value in numbers.items()}
    return {name: value for name, value in scores.items() if name not in missing}


def photo_and_render(picture: Float[Tensor, "height wide 3"], width: int) -> tuple[Image, Image]:
    """The outer panels of a model's own comparison: the photo on the left, the final render on the right.

    Args:
        picture: panels of the same width side by side, as nerfstudio's models return them under `img`.
        width: of a panel in pixels.
    """
    picture = picture.detach().float().cpu().clamp(0, 1)
    return picture[:, :width], picture[:, -width:]


def mean(images: list[dict[str, Any]], left_out: dict[str, str]) -> dict[str, float]:
    """Mean over the images of every metric that all have; by `std_mean` in float32 as ns-eval, `mean` may differ.

    The others go to `left_out`.
    """
    values: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for image in images for name in image if name != "name"):
        if all(name in image for image in images):
            values[name] = torch.tensor([image[name] for image in images])
        else:
            left_out[name] = "not for every image" + (f": {left_out[name]}" if name in left_out else "")
    return {name: float(torch.std_mean(of_images, correction=0)[1]) for name, of_images in values.items()}


def as_batch(image: Image, device: torch.device) -> Float[Tensor, "1 3 height width"]:
    """The image as networks take it."""
    return image.permute(2, 0, 1)[None].to(device)


def to_uint8(image: Image) -> UInt8[np.ndarray, "height width 3"]:
    """The image as PNG files hold it."""
    return (image.numpy() * 255).round().astype(np.uint8)
