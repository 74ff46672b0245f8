"""The photos of a split: each decoded once, at a reduced size averaged as the published protocols do it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from dietnerf_ns.utils.compat import complete_cameras
from dietnerf_ns.utils.errors import READ_ERRORS, UserError, in_one_line
from dietnerf_ns.utils.images import downscale_by_area

KEPT_BYTES = 2**30
"""Decoded photos are kept up to this size together; nerfstudio's own cache holds four times as much for the same."""


class AreaDownscaledDataset(InputDataset):
    """nerfstudio's image dataset whose `scale_factor` averages over areas, in colour and alpha together.

    Args:
        dataparser_outputs: images and cameras; without images the dataset is empty.
        scale_factor: size of the images relative to the files.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0):
        super().__init__(dataparser_outputs, scale_factor)
        complete_cameras(self.cameras)
        self._kept: dict[int, UInt8[np.ndarray, "_height _width _channels"]] = {}
        self._kept_bytes = 0

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "height width channels"]:
        """The image at `scale_factor` of its size: [height, width, 3 or 4], 0 to 255, straight alpha; not to be
        changed.

        Raises:
            UserError: the file cannot be read.
        """
        if image_idx in self._kept:
            return self._kept[image_idx]
        with self._naming(image_idx):
            image = self._decode(image_idx)
        if self._kept_bytes + image.nbytes <= KEPT_BYTES:
            self._kept[image_idx] = image
            self._kept_bytes += image.nbytes
        return image

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict:
        """The image as nerfstudio's data loaders take it, with its mask if there is one.

        Raises:
            UserError: a file cannot be read, or image and mask do not fit together.
        """
        with self._naming(image_idx):
            return super().get_data(image_idx, image_type)

    @contextlib.contextmanager
    def _naming(self, image_idx: int) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except READ_ERRORS as error:
            path = self._dataparser_outputs.image_filenames[image_idx]
            raise UserError(f"{path}: this photo or its mask cannot be read: {in_one_line(error)}") from error

    def _decode(self, image_idx: int) -> UInt8[np.ndarray, "height width channels"]:
        if self.scale_factor >= 1.0:
            return super().get_numpy_image(image_idx)
        with Image.open(self._dataparser_outputs.image_filenames[image_idx]) as pil_image:
            has_alpha = "A" in pil_image.getbands() or "transparency" in pil_image.info
            image = np.array(pil_image.convert("RGBA" if has_alpha else "RGB"))
        height, width = image.shape[:2]
        return downscale_by_area(image, (int(width * self.scale_factor), int(height * self.scale_factor)))
