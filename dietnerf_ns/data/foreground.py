"""Whether all photos have one uniform background, and what stands in front of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

MAX_PHOTOS = 20
"""Number of photos, evenly chosen, in which a uniform background is looked for."""
TOLERANCE = 0.05
"""Largest difference of a channel between pixels of one colour, and alpha below which a pixel is transparent."""
SHARE = 0.9
"""Part of the border pixels that must have one colour."""
CLEAR = 0.2
"""Difference from the background that no noise explains."""
OUTLINE, REACH = 1.5, 16.0
"""Distances in pixels, from what differs clearly, between which noise is measured: beyond mixed pixels, and as far as a
block of JPEG's halved colour channels goes."""
NOISE_FACTOR = 4.0
"""Times the noise's 90th percentile that ringing of JPEG of quality 75 or more does not exceed."""
PATCH = 7
"""Side in pixels of a square of slight difference that is an object's, not a ringing's, whose period is 8 at most."""
WHITE = (1.0, 1.0, 1.0)


def uniform_background(dataset: InputDataset) -> Float[Tensor, "3"] | None:
    """The background colour that a dataset's photos have in common, or None; see `border_color`."""
    step = -(-len(dataset) // MAX_PHOTOS)
    return border_color(dataset.get_image_float32(index) for index in range(0, len(dataset), step))


def border_color(images: Iterable[Float[Tensor, "_height _width _channels"]]) -> Float[Tensor, "3"] | None:
    """The colour that the images' outermost pixels have in common.

    Nine tenths of them must be within 0.05 of their median colour in every channel. If nine tenths are transparent the
    background is free to choose, and is white.

    Args:
        images: RGB or RGBA with straight alpha, in [0, 1].

    Returns:
        RGB in [0, 1], or None if there is no such colour.
    """
    borders = [_border(image) for image in images]
    transparent = _transparent(borders)
    if transparent.float().mean() >= SHARE:
        return torch.tensor(WHITE)
    colours = torch.cat([b[:, :3] for b in borders])
    opaque = colours[~transparent]
    median = opaque.median(dim=0).values
    alike = ((colours - median).abs() <= TOLERANCE).all(-1)
    # A photo whose whole border is transparent agrees with any colour; one that is cut at its border does not.
    free = torch.cat([_transparent([b]).all().expand(len(b)) for b in borders])
    return median if (alike & ~transparent | free).float().mean() >= SHARE else None


def has_transparent_background(dataset: InputDataset) -> bool:
    """Whether the model gets photos whose borders are transparent, so that it can put any colour behind them."""
    step = -(-len(dataset) // MAX_PHOTOS)
    borders = [_border(dataset.get_image_float32(index)) for index in range(0, len(dataset), step)]
    return bool(_transparent(borders).float().mean() >= SHARE)


def foreground_masks(dataset: InputDataset, background: Float[Tensor, "3"]) -> list[Bool[Tensor, "_height _width"]]:
    """The foreground of every photo of a dataset in front of a uniform background; see `foreground_mask`."""
    photos = (torch.from_numpy(dataset.get_numpy_image(index)).float() / 255 for index in range(len(dataset)))
    return [foreground_mask(photo, background) for photo in photos]


def foreground_mask(
    image: Float[Tensor, "height width channels"], background: Float[Tensor, "3"]
) -> Bool[Tensor, "height width"]:
    """The pixels that show the object.

    In an image with transparent pixels these are the others. In an opaque image they are the pixels that differ from
    the background by more than 0.05 in any channel. If the background has noise, such as JPEG's ringing beside an
    object, they must differ by four times that noise more, unless they fill a square of 7 pixels.

    Args:
        image: RGB or RGBA with straight alpha, in [0, 1].
        background: RGB in [0, 1].
    """
    opaque = (image[..., 3:] >= TOLERANCE).all(-1)  # all True without alpha
    if not opaque.all():
        return opaque
    difference = _difference(image, background)
    differs = difference > TOLERANCE
    noise = _noise(difference)
    if noise == 0:
        return differs
    kernel = np.ones((PATCH, PATCH), dtype=np.uint8)
    patches = torch.from_numpy(cv2.morphologyEx(differs.byte().numpy(), cv2.MORPH_OPEN, kernel)).bool()
    return (difference > TOLERANCE + NOISE_FACTOR * noise) | patches


def surely_background(
    image: Float[Tensor, "height width channels"], background: Float[Tensor, "3"]
) -> Bool[Tensor, "height width"]:
    """The pixels around an object in an opaque photo that show its uniform background.

    Neither those that differ from the background by more than 0.05 in any channel, which may be thin parts as well as
    noise, nor those beside them, which may be mixed, nor what they enclose, which may be a part of the background's
    colour.

    Args:
        image: RGB in [0, 1]; an alpha channel is ignored.
        background: RGB in [0, 1].
    """
    differs = _difference(image, background) > TOLERANCE
    beside = cv2.dilate(differs.byte().numpy(), np.ones((3, 3), dtype=np.uint8))
    _, areas = cv2.connectedComponents(1 - beside, connectivity=4)
    around = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    return torch.from_numpy(np.isin(areas, around[around > 0]))


def _difference(
    image: Float[Tensor, "height width channels"], background: Float[Tensor, "3"]
) -> Float[Tensor, "height width"]:
    return (image[..., :3] - background).abs().amax(-1)


def _noise(difference: Float[Tensor, "height width"]) -> float:
    """The 90th percentile of what the background differs from its colour near an object.

    An image without lossy compression has one colour there, but for the mixed pixels of outlines.

    Args:
        difference: of each pixel from the background, in [0, 1].
    """
    background = (difference <= CLEAR).byte().numpy()
    distance = torch.from_numpy(cv2.distanceTransform(background, cv2.DIST_L2, 5))
    beside = (difference <= TOLERANCE) & (distance > OUTLINE) & (distance < REACH)
    return float(np.quantile(difference[beside].numpy(), 0.9)) if beside.any() else 0.0


class PhotoMasks:
    """Masks of photos, which may differ in size, as one tensor in which many pixels are looked up at once.

    Args:
        masks: one for each photo, at least one.
    """

    def __init__(self, masks: Sequence[Bool[Tensor, "_height _width"]]):
        self._values = torch.cat([mask.flatten() for mask in masks])
        self._widths = torch.tensor([mask.shape[1] for mask in masks])
        sizes = torch.tensor([mask.numel() for mask in masks])
        self._starts = sizes.cumsum(0) - sizes

    def at(self, pixels: Int[Tensor, "n 3"]) -> Bool[Tensor, "n 1"]:
        """The masks' values, on the CPU.

        Args:
            pixels: photo, row and column of each.
        """
        photos, rows, columns = pixels.cpu().unbind(dim=-1)
        return self._values[self._starts[photos] + rows * self._widths[photos] + columns, None]


def _transparent(borders: Sequence[Float[Tensor, "_pixels _channels"]]) -> Bool[Tensor, "all_pixels"]:
    return torch.cat([(border[:, 3:] < TOLERANCE).any(-1) for border in borders])  # all False without alpha


def _border(image: Float[Tensor, "height width channels"]) -> Float[Tensor, "pixels channels"]:
    return torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
