"""Images as arrays: downscaling as the published protocols do it."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8


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
