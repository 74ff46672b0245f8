"""Images at a reduced resolution, averaged the way the published protocols do it."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from dietnerf_ns.utils.compat import complete_cameras
from dietnerf_ns.utils.images import downscale_by_area


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
