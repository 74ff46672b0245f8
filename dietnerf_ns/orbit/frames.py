"""The frames of a trained run: colour and depth as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.colormaps import apply_depth_colormap
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.utils.rich_utils import get_progress
from torch import Tensor

from dietnerf_ns.utils.errors import UserError, in_one_line

Shown = Literal["rgb", "depth", "both"]
NAMES = {kind: (kind, f"{kind}_fine") for kind in ("rgb", "depth", "accumulation")}
"""What nerfstudio's models call an output; those with a coarse and a fine network have only the second."""
FRAMES_LOOKED_AT = 8
SIDE_LOOKED_AT_PX = 48


def load_run(load_config: Path) -> Pipeline:
    """The trained pipeline behind a run's config.yml, of any method, ready to render.

    Raises:
        UserError: it is no run, or its checkpoint or data are not there.
    """
    try:
        return eval_setup(load_config, update_config_callback=_checked)[1]
    except torch.OutOfMemoryError:
        raise
    except (OSError, yaml.YAMLError, AssertionError, LookupError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"--load-config {load_config}: this run cannot be loaded; is it a config.yml that ns-train wrote? "
            f"{in_one_line(error)}"
        ) from error


def _checked(config: TrainerConfig) -> TrainerConfig:
    checkpoints = config.get_checkpoint_dir()
    if not any(checkpoints.glob("*.ckpt")):
        raise UserError(
            f"No checkpoint in {checkpoints}. The paths in a run are relative: start the command in the folder where "
            "you trained."
        )
    for split in ("train", "eval"):
        setting = f"{split}_num_images_to_sample_from"
        if hasattr(config.pipeline.datamanager, setting):
            setattr(config.pipeline.datamanager, setting, 1)  # only cameras are needed, and all photos may not fit
    return config


def depth_range(model: Model, cameras: Cameras) -> tuple[float, float]:
    """Near and far for the colours of all frames: the 2nd and 98th percentile of the depth of what is opaque.

    Depth is in scene units along the ray. Looks at up to eight of the frames, with a shorter side of 48 pixels.
    """
    few = cameras[torch.linspace(0, len(cameras) - 1, min(FRAMES_LOOKED_AT, len(cameras))).round().long()]
    few.rescale_output_resolution(SIDE_LOOKED_AT_PX / int(min(few.height[0], few.width[0])))
    outputs = [model.get_outputs_for_camera(few[i : i + 1].to(model.device)) for i in range(len(few))]
    depth = torch.cat([_output(o, "depth").flatten() for o in outputs])
    opaque = torch.cat([_output(o, "accumulation").flatten() for o in outputs]) > 0.5
    near, far = torch.quantile(depth[opaque] if opaque.any() else depth, torch.tensor([0.02, 0.98]).to(depth))
    return float(near), float(far)


def render_frames(model: Model, cameras: Cameras, shown: Shown) -> Iterator[UInt8[np.ndarray, "height wide 3"]]:
    """One picture per camera, with a progress bar; `both` puts the depth to the right of the colours.

    Raises:
        UserError: the model has no such output.
    """
    near, far = (0.0, 0.0) if shown == "rgb" else depth_range(model, cameras)
    with get_progress("Rendering", suffix="frames/s") as progress:
        for i in progress.track(range(len(cameras))):
            outputs = model.get_outputs_for_camera(cameras[i : i + 1].to(model.device))
            panels = []
            if shown != "depth":
                panels.append(_output(outputs, "rgb"))
            if shown != "rgb":
                depth, accumulation = _output(outputs, "depth"), _output(outputs, "accumulation")
                panels.append(apply_depth_colormap(depth, accumulation, near, far))
            yield _to_uint8(torch.cat(panels, dim=1))


def _output(outputs: dict[str, Tensor], kind: str) -> Float[Tensor, "height width channels"]:
    name = next((name for name in NAMES[kind] if outputs.get(name) is not None), None)
    if name is None:
        raise UserError(f"--outputs: this method renders no {kind}; it renders {', '.join(outputs)}.")
    return outputs[name]


def _to_uint8(image: Float[Tensor, "height wide 3"]) -> UInt8[np.ndarray, "height wide 3"]:
    return (image.clamp(0, 1) * 255).round().byte().cpu().numpy()
