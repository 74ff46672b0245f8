"""Images at a reduced resolution, averaged the way the published protocols do it."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from dietnerf_ns.compat import complete_cameras


def downscale_by_area(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """Average over each target pixel's area, colours weighted by alpha, so that no fringe of the hidden RGB appears.

    Args:
        image: RGB or RGBA with straight alpha, 0 to 255.
        size: target (width, height) in pixels, not larger than the image.

    Returns:
        RGB or RGBA with straight alpha; RGB is 0 where alpha is 0.
    """
    colour = image.astype(np.float32)
    if image.shape[-1] == 3:
        return _to_uint8(cv2.resize(colour, size, interpolation=cv2.INTER_AREA))
    alpha = colour[..., 3:] / 255
    averaged = cv2.resize(np.concatenate([colour[..., :3] * alpha, alpha], axis=-1), size, interpolation=cv2.INTER_AREA)
    alpha = averaged[..., 3:]
    straight = np.divide(averaged[..., :3], alpha, out=np.zeros_like(averaged[..., :3]), where=alpha > 0)
    return _to_uint8(np.concatenate([straight, alpha * 255], axis=-1))


def _to_uint8(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


class AreaDownscaledDataset(InputDataset):
    """nerfstudio's image dataset whose `scale_factor` averages over areas, in colour and alpha together.

    Args:
        dataparser_outputs: images and cameras; none at all makes an empty dataset.
        scale_factor: size of the images relative to the files.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0):
        super().__init__(dataparser_outputs, scale_factor)
        complete_cameras(self.cameras)

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "height width channels"]:
        """The image at `scale_factor` of its size: [H, W, 3 or 4], 0 to 255, straight alpha."""
        if self.scale_factor >= 1.0:
            return super().get_numpy_image(image_idx)
        with Image.open(self._dataparser_outputs.image_filenames[image_idx]) as pil_image:
            has_alpha = "A" in pil_image.getbands() or "transparency" in pil_image.info
            image = np.array(pil_image.convert("RGBA" if has_alpha else "RGB"))
        height, width = image.shape[:2]
        return downscale_by_area(image, (int(width * self.scale_factor), int(height * self.scale_factor)))
