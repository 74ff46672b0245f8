"""Image metrics in two conventions that must not be mixed, a perceptual metric, and semantic similarity.

nerfstudio: the metrics that a model computes itself: PSNR, SSIM (torchmetrics, Gaussian 11x11 window), LPIPS (AlexNet,
images scaled to [-1, 1]). paper: as in DietNeRF's released code: PSNR, SSIM (scikit-image, uniform 7x7 window), LPIPS
(VGG, images left in [0, 1]). perceptual: ST-LPIPS, whose values are not those of LPIPS. Metrics are named
`convention/metric`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from nerfstudio.models.base_model import Model
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from dietnerf_ns.bench.cell import ABOUT_THE_IMAGE
from dietnerf_ns.bench.networks import Lite2Encoder, load_st_lpips
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.models.metrics import black_outside, missing_metrics, psnr_inside
from dietnerf_ns.semantic.encoders import EncoderConfig, ImageEncoder
from dietnerf_ns.utils.errors import flags_under, in_one_line

NERFSTUDIO, PAPER, PERCEPTUAL, SEMANTIC = "nerfstudio", "paper", "perceptual", "semantic"
FINE = "fine_"
"""Prefix of the final render's metrics in models with a coarse and a fine render."""
Image = Float[Tensor, "height width 3"]
"""RGB in [0, 1], on the CPU."""
Compare = Callable[[Image, Image], float]
"""Metric of a photo and a render."""


class ImageMetric:
    """A metric whose network is loaded at the first image, and which is left out if that fails.

    Args:
        name: `convention/metric`.
        load: makes the function that compares a photo with a render.
    """

    def __init__(self, name: str, load: Callable[[], Compare]):
        self.name = name
        self.left_out: dict[str, str] = {}
        self._load = load
        self._compare: Compare | None = None

    def __call__(
        self, photo: Image, render: Image, mask: Bool[Tensor, "height width 1"] | None = None
    ) -> dict[str, float]:
        """The value by the metric's name, or nothing if it cannot be computed; `left_out` then has the reason.

        Args:
            photo: RGB in [0, 1].
            render: of the same view.
            mask: True where pixels count, if not all do. PSNR is taken over these pixels; for all other metrics, photo
                and render are black outside, as in `SemanticModel.get_image_metrics_and_images`.
        """
        if self.left_out:
            return {}
        if mask is not None:
            photo, render = black_outside(mask, photo), black_outside(mask, render)
        try:
            self._compare = self._compare or self._load()
            value = {self.name: self._compare(photo, render)}
            return value if mask is None else psnr_inside(mask, value)
        except Exception as error:  # no network, no weights, image too small: a missing metric must not cost the run
            self.left_out = {self.name: in_one_line(error)}
            return {}


def image_metrics(similarity: dict[str, Any], device: torch.device) -> list[ImageMetric]:
    """The metrics that are computed in the same way for every method, in the order of the report.

    Args:
        similarity: settings of the encoder; see `EncoderConfig`.
        device: device that the networks run on.
    """
    return [
        ImageMetric(f"{PAPER}/psnr", lambda: paper_psnr),
        ImageMetric(f"{PAPER}/ssim", lambda: paper_ssim),
        ImageMetric(f"{PAPER}/lpips", lambda: paper_lpips(device)),
        ImageMetric(f"{PERCEPTUAL}/st-lpips", st_lpips),
        ImageMetric(f"{SEMANTIC}/similarity", lambda: semantic_similarity(similarity, device)),
        ImageMetric(f"{SEMANTIC}/similarity-lite2", lambda: similarity_by(Lite2Encoder(device), device)),
    ]


def paper_psnr(photo: Image, render: Image) -> float:
    """PSNR of one image in dB. The paper reports the mean over images."""
    return float(peak_signal_noise_ratio(photo.numpy(), render.numpy(), data_range=1))


def paper_ssim(photo: Image, render: Image) -> float:
    """SSIM with a uniform 7x7 window, averaged over the channels."""
    ssim: Any = structural_similarity(photo.numpy(), render.numpy(), data_range=1, channel_axis=-1)
    return float(ssim)


def paper_lpips(device: torch.device) -> Compare:
    """LPIPS with VGG on images in [0, 1], although the network expects [-1, 1]: lower than correct values."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network = LearnedPerceptualImagePatchSimilarity(net_type="vgg", normalize=False).to(device)
    return lambda photo, render: float(network(as_batch(photo, device), as_batch(render, device)))


def st_lpips() -> Compare:
    """ST-LPIPS with AlexNet, on the CPU; 0 for equal images.

    Raises:
        ImportError: the extra `perceptual` is not installed.
    """
    network, cpu = load_st_lpips(), torch.device("cpu")

    @torch.no_grad()
    def compare(photo: Image, render: Image) -> float:
        return float(network(as_batch(photo, cpu), as_batch(render, cpu), normalize=True))

    return compare


def semantic_similarity(similarity: dict[str, Any], device: torch.device) -> Compare:
    """Cosine similarity, in [-1, 1], of the embeddings of photo and render.

    Args:
        similarity: settings of the encoder; see `EncoderConfig`.
        device: device that the encoder runs on.

    Raises:
        UserError: the encoder's weights cannot be loaded.
    """
    with flags_under("similarity.", separator="_"):
        encoder = EncoderConfig(**similarity).load_encoder(device)
    return similarity_by(encoder, device)


def similarity_by(encoder: ImageEncoder, device: torch.device) -> Compare:
    """Cosine similarity, in [-1, 1], of an encoder's embeddings of photo and render.

    Args:
        encoder: a loaded encoder.
        device: device that it runs on.
    """

    def compare(photo: Image, render: Image) -> float:
        a, b = (encoder.embed(encoder.preprocess(as_batch(image, device))) for image in (photo, render))
        return float((a * b).sum())

    return compare


def model_metrics_and_images(
    model: Model, outputs: dict[str, Tensor], batch: dict[str, Any], width: int
) -> tuple[dict[str, Any], Image, Image]:
    """A model's own metrics of an evaluation view, its photo, and its render.

    nerfstudio's models ignore the photo's mask in their metrics. They get it here in the way of this package's models
    (`SemanticModel.get_image_metrics_and_images`), so that one table has the metrics of the same pixels.

    Args:
        model: a trained model.
        outputs: of the view's camera.
        batch: `image` and for some data `mask`.
        width: of the photo in pixels.
    """
    numbers, panels = model.get_image_metrics_and_images(outputs, batch)
    photo, render = photo_and_render(panels["img"], width)
    if "mask" in batch and not isinstance(model, SemanticModel):
        mask = batch["mask"]
        renders = {name: black_outside(mask, image) for name, image in outputs.items() if name.startswith("rgb")}
        inside = batch | {"image": black_outside(mask, photo.to(batch["image"].device))}
        numbers = psnr_inside(mask, model.get_image_metrics_and_images(outputs | renders, inside)[0])
    return numbers, photo, render


def nerfstudio_metrics(numbers: dict[str, Any], model: Model, left_out: dict[str, str]) -> dict[str, float]:
    """A model's own metrics by their full names.

    Of models that name the metrics of their final render `fine_ssim` and the like, these are `ssim` as well.

    Args:
        numbers: what `get_image_metrics_and_images` of the model returned.
        model: the model; it may know why a metric is missing.
        left_out: the metrics that are missing or not a number are added here, with the reason.
    """
    numbers = {name.removeprefix(FINE): value for name, value in numbers.items() if name.startswith(FINE)} | numbers
    reasons = missing_metrics(model)
    not_numbers = [name for name, value in numbers.items() if math.isnan(float(value))]
    missing = reasons | {name: reasons.get(name.rpartition("_")[-1], "not a number") for name in not_numbers}
    left_out |= {f"{NERFSTUDIO}/{name}": reason for name, reason in missing.items()}
    return {f"{NERFSTUDIO}/{name}": float(value) for name, value in numbers.items() if name not in missing}


def only_finite(scores: dict[str, float], left_out: dict[str, str]) -> dict[str, float]:
    """The metrics of an image that are finite. PSNR is infinite for a render that equals its photo.

    Args:
        scores: metrics of one image.
        left_out: the others are added here, with the reason.
    """
    finite = {name: value for name, value in scores.items() if math.isfinite(value)}
    left_out |= {name: f"{scores[name]} for an image" for name in scores.keys() - finite.keys()}
    return finite


def photo_and_render(panels: Float[Tensor, "height total_width 3"], width: int) -> tuple[Image, Image]:
    """The outer panels of a model's own comparison: the photo on the left and the final render on the right.

    Args:
        panels: images of the same width side by side, as nerfstudio's models return them under `img`.
        width: width of one panel in pixels.
    """
    panels = panels.detach().float().cpu().clamp(0, 1)
    return panels[:, :width], panels[:, -width:]


def mean(images: list[dict[str, Any]], left_out: dict[str, str]) -> dict[str, float]:
    """Mean over the images of every metric that all images have.

    It is computed by `std_mean` in float32 as in `ns-eval`; `mean` may differ in the last digits.

    Args:
        images: metrics of each image, and what `ABOUT_THE_IMAGE` names.
        left_out: the metrics that some image lacks are added here, with the reason.
    """
    values: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for image in images for name in image if name not in ABOUT_THE_IMAGE):
        if all(name in image for image in images):
            values[name] = torch.tensor([image[name] for image in images])
        else:
            left_out[name] = "not for every image" + (f": {left_out[name]}" if name in left_out else "")
    return {name: float(torch.std_mean(of_images, correction=0)[1]) for name, of_images in values.items()}


def as_batch(image: Image, device: torch.device) -> Float[Tensor, "1 3 height width"]:
    """The image as a batch of one on a network's device."""
    return image.permute(2, 0, 1)[None].to(device)


def to_uint8(image: Image) -> UInt8[np.ndarray, "height width 3"]:
    """RGB in 0..255 for image files."""
    return (image.numpy() * 255).round().astype(np.uint8)
