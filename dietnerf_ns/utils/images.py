"""Images: downscaling as the published protocols do it, and composition with a background."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

Blend = Callable[[Float[Tensor, "height width channels"]], Float[Tensor, "height width 3"]]
"""Composes an RGBA image, straight alpha in [0, 1], with a background; leaves RGB as it is."""


def downscale_by_area(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """Average over the area of each target pixel, with colours weighted by alpha so that hidden RGB leaves no fringe.

    Args:
        image: RGB or RGBA with straight alpha, 0 to 255.
        size: target (width, height) in pixels, not larger than the image.

    Returns:
        RGB or RGBA with straight alpha; RGB is 0 where alpha is 0.
    """
    return _resized(image, size, cv2.INTER_AREA)


def enlarge(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """Interpolate linearly, with colours weighted by alpha so that hidden RGB leaves no fringe.

    Args:
        image: RGB or RGBA with straight alpha, 0 to 255.
        size: target (width, height) in pixels.

    Returns:
        RGB or RGBA with straight alpha; RGB is 0 where alpha is 0.
    """
    return _resized(image, size, cv2.INTER_LINEAR)


def _resized(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int], interpolation: int
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    colour = image.astype(np.float32)
    if image.shape[-1] == 3:
        return _to_uint8(cv2.resize(colour, size, interpolation=interpolation))
    alpha = colour[..., 3:] / 255
    averaged = cv2.resize(np.concatenate([colour[..., :3] * alpha, alpha], axis=-1), size, interpolation=interpolation)
    alpha = averaged[..., 3:]
    straight = np.divide(averaged[..., :3], alpha, out=np.zeros_like(averaged[..., :3]), where=alpha > 0)
    return _to_uint8(np.concatenate([straight, alpha * 255], axis=-1))


def _to_uint8(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
