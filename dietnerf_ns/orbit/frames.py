"""Frames of a trained run: rendered colour and depth as 8-bit RGB images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.colormaps import apply_depth_colormap
from nerfstudio.utils.rich_utils import get_progress
from torch import Tensor

from dietnerf_ns.utils.errors import READ_ERRORS, UserError, in_one_line
from dietnerf_ns.utils.saved_runs import load_pipeline

FrameContent = Literal["rgb", "depth", "both"]
OUTPUT_NAMES = {kind: (kind, f"{kind}_fine") for kind in ("rgb", "depth", "accumulation")}
"""Names of nerfstudio's model outputs. Models with a coarse and a fine network have only the second name."""
DEPTH_RANGE_FRAMES = 8
DEPTH_RANGE_SIDE_PX = 48


def load_run(load_config: Path) -> Pipeline:
    """Load a trained pipeline of any installed nerfstudio method, ready to render. Nothing in the files is executed.

    Args:
        load_config: the config.yml that ns-train wrote.

    Raises:
        UserError: the file is not the configuration of a run or is refused (see `read_config`), or the checkpoint or
            the data are missing.
    """
    try:
        return load_pipeline(load_config, prepare=_prepared_to_render)
    except (UserError, torch.OutOfMemoryError):
        raise
    # A config.yml holds attributes of Python objects: one that another version wrote may lack some.
    except (*READ_ERRORS, AttributeError) as error:
        raise UserError(
            f"--load-config {load_config}: this run cannot be loaded; is it a config.yml that ns-train wrote? "
            f"{in_one_line(error)}"
        ) from error


def _prepared_to_render(config: TrainerConfig) -> TrainerConfig:
    for split in ("train", "eval"):
        setting = f"{split}_num_images_to_sample_from"
        if hasattr(config.pipeline.datamanager, setting):
            setattr(config.pipeline.datamanager, setting, 1)  # only cameras are needed, and all photos may not fit
    return config


def depth_range(model: Model, cameras: Cameras) -> tuple[float, float]:
    """Choose the limits of the depth colours that all frames share.

    They are the 2nd and the 98th percentile of the depth of opaque pixels (accumulation above 0.5) in at most
    `DEPTH_RANGE_FRAMES` of the frames, rendered with a shorter side of `DEPTH_RANGE_SIDE_PX` pixels.

    Args:
        model: the trained model.
        cameras: cameras of all frames, shape [frames].

    Returns:
        The near and the far limit, in scene units along the ray.
    """
    near, far = _depth_quantiles(model, cameras, (0.02, 0.98))
    return near, far


def median_depth(model: Model, cameras: Cameras) -> float:
    """Median depth of the opaque pixels in small renders from some of the cameras, in scene units along the ray."""
    (depth,) = _depth_quantiles(model, cameras, (0.5,))
    return depth


def _depth_quantiles(model: Model, cameras: Cameras, quantiles: Sequence[float]) -> list[float]:
    count = min(DEPTH_RANGE_FRAMES, len(cameras))
    chosen = cameras[torch.linspace(0, len(cameras) - 1, count).round().long()]
    chosen.rescale_output_resolution(DEPTH_RANGE_SIDE_PX / int(min(chosen.height[0], chosen.width[0])))
    outputs = [model.get_outputs_for_camera(chosen[i : i + 1].to(model.device)) for i in range(count)]
    depth = torch.cat([_output(o, "depth").flatten() for o in outputs])
    opaque = torch.cat([_output(o, "accumulation").flatten() for o in outputs]) > 0.5
    return torch.quantile(depth[opaque] if opaque.any() else depth, torch.tensor(quantiles).to(depth)).tolist()


def render_frames(
    model: Model, cameras: Cameras, content: FrameContent
) -> Iterator[UInt8[np.ndarray, "height wide 3"]]:
    """Render one RGB image for each camera and show a progress bar.

    Args:
        model: the trained model.
        cameras: cameras of the frames, shape [frames].
        content: colour, depth, or `both`, which puts the depth to the right of the colour in one image of twice the
            width.

    Raises:
        UserError: the model does not render colour, depth or accumulation.
    """
    near, far = (0.0, 0.0) if content == "rgb" else depth_range(model, cameras)
    with get_progress("Rendering", suffix="frames/s") as progress:
        for i in progress.track(range(len(cameras))):
            outputs = model.get_outputs_for_camera(cameras[i : i + 1].to(model.device))
            images = []
            if content != "depth":
                images.append(_output(outputs, "rgb"))
            if content != "rgb":
                depth, accumulation = _output(outputs, "depth"), _output(outputs, "accumulation")
                images.append(apply_depth_colormap(depth, accumulation, near, far))
            yield _to_uint8(torch.cat(images, dim=1))


def _output(outputs: dict[str, Tensor], kind: str) -> Float[Tensor, "height width channels"]:
    name = next((name for name in OUTPUT_NAMES[kind] if outputs.get(name) is not None), None)
    if name is None:
        raise UserError(f"--outputs: this method renders no {kind}; it renders {', '.join(outputs)}.")
    return outputs[name]


def _to_uint8(image: Float[Tensor, "height wide 3"]) -> UInt8[np.ndarray, "height wide 3"]:
    return (image.clamp(0, 1) * 255).round().byte().cpu().numpy()
