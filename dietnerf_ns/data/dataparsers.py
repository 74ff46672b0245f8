"""nerfstudio's dataparsers, with errors that name the data and poses that a single camera position cannot break."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image

from dietnerf_ns.data.camera_checks import check_cameras
from dietnerf_ns.data.dataset import FISHEYE_RADIUS
from dietnerf_ns.data.photos import SUFFIXES
from dietnerf_ns.data.transforms_file import checked_transforms
from dietnerf_ns.utils.errors import READ_ERRORS, UserError, in_one_line

OTHER_FORMATS = {
    "transforms.json": "nerfstudio-data",
    "transforms_train.json": "blender-data",
    "colmap/sparse/0": "colmap",
    "sparse/0": "colmap --colmap-path sparse/0",
}
"""What says that data is in another format, and what the command then ends with: its dataparser."""
LARGEST_SCALE = 1e6
"""Dataparsers divide positions by the largest one. For cameras at one position that is rounding error, or zero."""


def checked(config: DataParserConfig) -> DataParserConfig:
    """The same dataparser, whose failures are `UserError`s.

    Args:
        config: of any of nerfstudio's dataparsers; left as it is.
    """
    parser = config._target
    return replace(config, _target=type(parser.__name__, (_CheckedDataParser, parser), {}))


@contextlib.contextmanager
def _translated(config: DataParserConfig) -> Iterator[None]:
    try:
        with checked_transforms():
            yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(_missing(config, error)) from error
    except EOFError as error:  # nerfstudio asks a question where nobody can answer
        asks, remedy = "reduce the photos", "the dataparser's name and --downscale-factor 1"
        if isinstance(config, NerfstudioDataParserConfig):
            asks, remedy = "convert the points of the COLMAP model", "nerfstudio-data --load-3D-points False"
        raise UserError(
            f"The dataparser asks whether it may {asks} of {config.data}, and there is no terminal for an answer: end "
            f"the command with {remedy}."
        ) from error
    except (*READ_ERRORS, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"The dataparser cannot read {config.data}: {in_one_line(error)}") from error


def _missing(config: DataParserConfig, error: FileNotFoundError) -> str:
    message = f"The dataparser cannot read {config.data}: there is no {error.filename}."
    if Path(str(error.filename)).suffix != ".json":
        return message
    for folder in (config.data, config.data.parent):
        known = next((name for name in OTHER_FORMATS if (folder / name).exists()), None)
        if known is not None and Path(str(error.filename)) != folder / known:
            return f"{message} There is {folder / known}: give --data {folder} and end with {OTHER_FORMATS[known]}."
    if config.data.is_dir() and any(path.suffix.lower() in SUFFIXES for path in config.data.iterdir()):
        return f"{message} These are photos without poses: `dietnerf-poses` finds the poses."
    return message


class _CheckedDataParser(DataParser if TYPE_CHECKING else object):
    def __init__(self, config: DataParserConfig):
        with _translated(config):
            super().__init__(config)

    def get_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        """Images and cameras of a split.

        Raises:
            UserError: the dataparser cannot read its data (the dataparser's error is the cause), or a camera is
                impossible.
        """
        with _translated(self.config):
            outputs = self._with_usable_scale(split, **kwargs)
        self._reduce_fisheye_circle(outputs)
        if split == "train" and outputs.image_filenames:
            check_cameras(outputs.cameras, _short_names(outputs.image_filenames))
            if outputs.metadata.get("depth_filenames"):
                CONSOLE.print("Depth images: these methods do not use them.")
        return outputs

    def _reduce_fisheye_circle(self, outputs: DataparserOutputs) -> None:
        """nerfstudio reduces the cameras with the photos, but not the radius, which is in pixels, too."""
        metadata, factor = outputs.cameras.metadata or {}, getattr(self, "downscale_factor", None) or 1
        if FISHEYE_RADIUS in metadata:
            outputs.cameras.metadata = metadata | {FISHEYE_RADIUS: metadata[FISHEYE_RADIUS] / factor}

    def _with_an_up_direction(self, split: str, **kwargs) -> DataparserOutputs:
        """nerfstudio divides by the length of the mean of the cameras' up axes."""
        outputs = super().get_dataparser_outputs(split, **kwargs)
        method = getattr(self.config, "orientation_method", "none")
        if method != "none" and len(outputs.cameras) > 0 and outputs.cameras.camera_to_worlds.isnan().all():
            raise UserError(
                "The cameras' up axes cancel out, as of cameras that look straight down and are turned evenly: put "
                "--orientation-method none at the end of the command, after the dataparser's name."
            )
        return outputs

    def _with_usable_scale(self, split: str, **kwargs) -> DataparserOutputs:
        if not getattr(self.config, "auto_scale_poses", False):
            return self._with_an_up_direction(split, **kwargs)
        try:
            outputs = self._with_an_up_direction(split, **kwargs)
            if outputs.dataparser_scale < LARGEST_SCALE:
                return outputs
        except ZeroDivisionError:
            pass
        CONSOLE.print(
            "[yellow]All cameras are at one position, which says nothing about the scene's size: the poses keep their "
            "scale. Depth is not determined by such photos; take some from other positions. World-to-camera matrices, "
            "which may look so, have to be inverted.[/yellow]"
        )
        self.config = replace(self.config, auto_scale_poses=False)
        return self._with_an_up_direction(split, **kwargs)


def _short_names(photos: Sequence[Path]) -> list[str]:
    """Names of photos for messages; with their folder's if two of them are called alike."""
    names = [path.name for path in photos]
    if len(set(names)) == len(set(photos)):
        return names
    return [f"{path.parent.name}/{path.name}" for path in photos]
