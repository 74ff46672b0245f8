"""The photos of a split: each decoded once, at a reduced size averaged as the published protocols do it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Shaped, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset

from dietnerf_ns.data.photos import Size, has_transparency, read_mask, read_photo
from dietnerf_ns.utils.compat import complete_cameras
from dietnerf_ns.utils.errors import SettingError, UserError
from dietnerf_ns.utils.images import downscale_by_area, enlarge

KEPT_BYTES = 2**30
"""Decoded photos are kept up to this size together; nerfstudio's own cache holds four times as much for the same."""
OPAQUE = 255
FISHEYE_RADIUS = "fisheye_crop_radius"
"""Of nerfstudio's camera metadata, in pixels."""
ROUNDING = 1
"""Pixels by which a photo in a folder of reduced photos, such as images_4, may differ from its camera."""


class AreaDownscaledDataset(InputDataset):
    """nerfstudio's image dataset whose `scale_factor` averages over areas, in colour and alpha together.

    Photos and masks of any format are read by `data.photos`. If one photo of the dataset has transparency, all are
    RGBA.

    Args:
        dataparser_outputs: images and cameras; without images the dataset is empty.
        scale_factor: size of the images relative to the files.
        upright: whether the poses belong to the upright photos where sizes do not tell; see `orientations_of`.

    Raises:
        SettingError: nothing is left of an image at this `scale_factor`.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0, *, upright: bool = False):
        super().__init__(dataparser_outputs, scale_factor)
        self._upright = upright
        # nerfstudio's datamanager of images removes from this list, which all datasets of a process would share.
        self.exclude_batch_keys_from_device = [*type(self).exclude_batch_keys_from_device]
        if (self.cameras.width < 1).any() or (self.cameras.height < 1).any():
            raise SettingError("camera_res_scale_factor", scale_factor, "no pixel of the photos would be left.")
        if scale_factor != 1.0:
            self._scale_intrinsics()
        complete_cameras(self.cameras)
        self._kept: dict[int, UInt8[np.ndarray, "_height _width _channels"]] = {}
        self._kept_bytes = 0

    def _scale_intrinsics(self) -> None:
        """Fit focal lengths and principal points to the images' sizes, which are rounded down."""
        original, reduced = self._dataparser_outputs.cameras, self.cameras
        across, along = reduced.width / original.width, reduced.height / original.height
        reduced.fx, reduced.cx = original.fx * across, original.cx * across
        reduced.fy, reduced.cy = original.fy * along, original.cy * along
        metadata = original.metadata or {}
        if FISHEYE_RADIUS in metadata:
            reduced.metadata = metadata | {FISHEYE_RADIUS: metadata[FISHEYE_RADIUS] * self.scale_factor}

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "height width channels"]:
        """The image at `scale_factor` of its size: [height, width, 3 or 4], 0 to 255, straight alpha; not to be
        changed. Outside its mask it has the dataparser's `mask_color`, if one is set.

        Raises:
            UserError: the file cannot be read, or does not have its camera's size.
        """
        if image_idx in self._kept:
            return self._kept[image_idx]
        image = self._decode(image_idx)
        if self.mask_color and self.has_masks:
            colour = np.rint(OPAQUE * np.array([*self.mask_color, 1.0])).astype(np.uint8)  # opaque
            image = np.where(self._mask(image_idx)[..., None], image, colour[: image.shape[-1]])
        if self._kept_bytes + image.nbytes <= KEPT_BYTES:
            self._kept[image_idx] = image
            self._kept_bytes += image.nbytes
        return image

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict:
        """The image as nerfstudio's data loaders take it, with its mask [height, width, 1] if there is one.

        Raises:
            UserError: a file cannot be read, or does not have its camera's size.
        """
        image = self.get_image_float32(image_idx) if image_type == "float32" else self.get_image_uint8(image_idx)
        data = {"image_idx": image_idx, "image": image}
        if self.has_masks:
            data["mask"] = torch.from_numpy(self._mask(image_idx))[..., None]
        return data | self.get_metadata(data)

    @property
    def has_masks(self) -> bool:
        """Whether each photo has a mask."""
        return bool(self._dataparser_outputs.mask_filenames)

    @cached_property
    def _some_are_transparent(self) -> bool:
        return any(has_transparency(path) for path in self.image_filenames)

    def _decode(self, index: int) -> UInt8[np.ndarray, "height width channels"]:
        path = self.image_filenames[index]
        image = self._fitted(index, path, read_photo(path, self._camera_size(index), upright=self._upright))
        if self._some_are_transparent and image.shape[-1] == 3:
            image = np.pad(image, ((0, 0), (0, 0), (0, 1)), constant_values=OPAQUE)
        if self.scale_factor == 1.0:
            return image
        size = self._size_of(self.cameras, index)
        return downscale_by_area(image, size) if self.scale_factor < 1 else enlarge(image, size)

    def _mask(self, index: int) -> Bool[np.ndarray, "height width"]:
        """A pixel of the reduced size counts if all of its area is inside the mask."""
        path = (self._dataparser_outputs.mask_filenames or [])[index]
        mask = read_mask(path, self._camera_size(index), upright=self._upright)
        if not self._has_size(index, mask):  # as if drawn on the stored pixels of a photo that is turned
            turned = read_mask(path, turned_like=self.image_filenames[index])
            mask = turned if self._has_size(index, turned) else mask
        mask = self._fitted(index, path, mask)
        if self.scale_factor != 1.0:
            size = self._size_of(self.cameras, index)
            mask = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) == 255
        return mask

    def _fitted(self, index: int, path: Path, image: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """The image, or the mask, at exactly its camera's size."""
        height, width = image.shape[:2]
        self._check_size(index, path, (width, height))
        expected_width, expected_height = self._camera_size(index)
        more = [(0, max(expected_height - height, 0)), (0, max(expected_width - width, 0))]
        if (width, height) == (expected_width, expected_height):
            return image
        return np.pad(image[:expected_height, :expected_width], more + [(0, 0)] * (image.ndim - 2), mode="edge")

    def _check_size(self, index: int, path: Path, size: Size) -> None:
        if self._is_size_of(index, size):
            return
        given, wanted = ("x".join(map(str, pair)) for pair in (size, self._camera_size(index)))
        if path != self.image_filenames[index]:
            raise UserError(
                f"{path} is {given} (width x height), but its photo's camera is {wanted}. Make the mask of the photo "
                "as its camera sees it."
            )
        raise UserError(
            f"{path} is {given} (width x height), but its camera is {wanted}. Use the photos that the cameras were "
            "computed from, or correct w, h, fl_x, fl_y, cx and cy of this frame."
        )

    def _has_size(self, index: int, image: Shaped[np.ndarray, "..."]) -> bool:
        return self._is_size_of(index, (image.shape[1], image.shape[0]))

    def _is_size_of(self, index: int, size: Size) -> bool:
        pairs = zip(size, self._camera_size(index), strict=True)
        return max(abs(given - wanted) for given, wanted in pairs) <= ROUNDING

    def _camera_size(self, index: int) -> Size:
        return self._size_of(self._dataparser_outputs.cameras, index)

    @staticmethod
    def _size_of(cameras: Cameras, index: int) -> Size:
        return int(cameras.width[index]), int(cameras.height[index])
