"""Image encoders: their settings, the interface, and the two that exist (OpenCLIP and embedded EfficientNet-Lite0)."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, assert_never, cast

import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from dietnerf_ns.semantic.weights import load_efficientnet_lite0, load_open_clip
from dietnerf_ns.utils.errors import SettingError
from dietnerf_ns.utils.settings import changed_fields

EncoderName = Literal["open-clip", "embedded"]
OF_OPEN_CLIP = ("clip_model", "clip_pretrained", "embedding")
"""Settings without effect on the other encoder."""


@dataclass
class EncoderConfig:
    """Which frozen network embeds images, and with which weights."""

    encoder: EncoderName = "open-clip"
    """open-clip: CLIP, the paper's choice, whose weights are downloaded at first use. embedded: ImageNet
    EfficientNet-Lite0 from an installed package; it needs no download, is small, and is weaker."""
    clip_model: str = "ViT-B-32-quickgelu"
    """Model name of open-clip-torch. OpenAI's weights need the -quickgelu variants."""
    clip_pretrained: str = "openai"
    """Weights of the CLIP model: a tag of open-clip-torch or a checkpoint file."""
    embedding: Literal["projected", "class-token"] = "projected"
    """Which CLIP vector is used: the projected image feature, or the last layer's class token as in the paper's
    code."""

    def load_encoder(self, device: torch.device | str) -> ImageEncoder:
        """Load the encoder onto a device.

        Raises:
            SettingError: the weights cannot be loaded, or the settings do not fit together.
        """
        if self.encoder == "embedded":
            if ignored := changed_fields(self, OF_OPEN_CLIP):
                names = ", ".join(name.replace("_", "-") for name in ignored)
                CONSOLE.print(f"[yellow]Ignored with encoder embedded, which is not CLIP: {names}.[/yellow]")
            return EmbeddedEncoder(device)
        if self.encoder == "open-clip":
            return OpenClipEncoder(self.clip_model, self.clip_pretrained, embedding=self.embedding, device=device)
        assert_never(self.encoder)

    def identity(self) -> dict[str, str]:
        """The settings that matter for this encoder, by their names: what identifies it in titles and result files."""
        names = () if self.encoder == "embedded" else OF_OPEN_CLIP
        return {name: getattr(self, name) for name in ("encoder", *names)}


class ImageEncoder(ABC):
    """A frozen network that maps images to unit vectors.

    Deliberately no `nn.Module`: nothing that scans a pipeline (checkpoints, optimisers, the viewer) finds its weights.
    The network runs in half precision when training does (autocast), because only then are small gradients scaled.
    """

    network: Any
    """A frozen `nn.Module`, in evaluation mode."""
    steps: Compose = Compose([])
    """Of torchvision, that resize and normalise an image."""

    def keep_in_half_precision(self) -> None:
        """Convert the weights once. Mixed precision would convert them at every step."""
        self.network.half()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.network.parameters()).dtype

    @property
    def sees_central_square(self) -> bool:
        """Whether the central square is all that the network is shown of an image."""
        shortest = any(isinstance(step, Resize) and isinstance(step.size, int) for step in self.steps.transforms)
        return shortest and any(isinstance(step, CenterCrop) for step in self.steps.transforms)

    @abstractmethod
    def preprocess(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 size size"]:
        """Resize and normalise RGB in [0, 1] to what the network expects, with gradients."""

    @abstractmethod
    def embed(self, inputs: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch dim"]:
        """Embed preprocessed images as float32 unit vectors, with gradients to the inputs."""


def _clamp_keeping_gradients(images: Tensor) -> Tensor:
    """Clamp to [0, 1] as an 8-bit image is; gradients pass as if nothing were clamped."""
    return images + (images.clamp(0, 1) - images).detach()


def _apply(steps: Compose, images: Tensor) -> Tensor:
    for step in steps.transforms:
        images = step(_clamp_keeping_gradients(images) if isinstance(step, Normalize) else images)
    return images


class OpenClipEncoder(ImageEncoder):
    """The image tower of a CLIP model.

    Args:
        model_name: architecture of open-clip-torch; QuickGELU must match the weights.
        pretrained: tag of open-clip-torch or a local checkpoint file.
        embedding: `projected` is CLIP's image feature; `class-token` is the last transformer layer's class token
            before its layer norm and projection, as in DietNeRF's released code.
        device: where the network runs.

    Raises:
        SettingError: the weights cannot be loaded, or the tower has no class token.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: str,
        *,
        embedding: Literal["projected", "class-token"] = "projected",
        device: torch.device | str = "cpu",
    ):
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.device = torch.device(device)
        self.network = load_open_clip(model_name, pretrained, self.device)
        settings = cast(dict[str, Any], self.network.preprocess_cfg)
        own_transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
        assert isinstance(own_transform, Compose)
        # open-clip's own steps without those that turn a PIL image into a tensor: a render is one already.
        self.steps = Compose(
            [s for s in own_transform.transforms if not isinstance(s, ToTensor) and not inspect.isfunction(s)]
        )
        self.embedding = embedding
        if embedding == "class-token":
            self._last_tokens = self._watch_last_layer(model_name)

    def _watch_last_layer(self, model_name: str) -> list[Tensor]:
        transformer = getattr(self.network, "transformer", None)
        if transformer is None or not hasattr(self.network, "class_embedding"):
            raise SettingError(
                "embedding", "class-token", f"{model_name} is no vision transformer with a class token; use projected."
            )
        seen: list[Tensor] = []
        transformer.register_forward_hook(lambda _module, _inputs, tokens: seen.append(tokens))
        return seen

    def preprocess(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 size size"]:
        """open-clip's own resizing, cropping and normalisation, on tensors."""
        return _apply(self.steps, images)

    def embed(self, inputs: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch dim"]:
        """Unit vectors: [batch, 512] projected or [batch, 768] class token for ViT-B/32."""
        output = self.network(inputs.to(self.dtype))
        features = output[0] if isinstance(output, tuple) else output
        if self.embedding == "class-token":
            features = self._last_tokens.pop()[:, 0]  # batch x tokens x width -> batch x width
        return normalize(features.float(), dim=-1)


class EmbeddedEncoder(ImageEncoder):
    """ImageNet EfficientNet-Lite0, whose weights come with a package: for CPUs, tests, and machines without a network.

    Args:
        device: where the network runs.
    """

    SIZE = 224

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.network = load_efficientnet_lite0(self.device)
        # The network was trained on (RGB in 0..255 - 127) / 128.
        mean, std = [127 / 255] * 3, [128 / 255] * 3
        resize = Resize(self.SIZE, interpolation=InterpolationMode.BICUBIC, antialias=True)
        self.steps = Compose([resize, CenterCrop(self.SIZE), Normalize(mean, std)])

    def preprocess(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 224 224"]:
        """Shorter side to 224 (bicubic), centre crop, (255 x - 127) / 128."""
        return _apply(self.steps, images)

    def embed(self, inputs: Float[Tensor, "batch 3 224 224"]) -> Float[Tensor, "batch 1280"]:
        """Spatial mean of the last convolutional features, as unit vectors."""
        features = self.network.extract_features(inputs.to(self.dtype))  # batch x 1280 x 7 x 7
        return normalize(features.float().mean(dim=(2, 3)), dim=-1)
