"""Whether all photos have one uniform background, and what stands in front of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

MAX_PHOTOS = 20
"""Number of photos, evenly chosen, in which a uniform background is looked for."""
TOLERANCE = 0.05
"""Largest difference of a channel between pixels of one colour, and alpha below which a pixel is transparent."""
SHARE = 0.9
"""Part of the border pixels that must have one colour."""
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
    transparent = torch.cat([(b[:, 3:] < TOLERANCE).any(-1) for b in borders])  # all False without alpha
    if transparent.float().mean() >= SHARE:
        return torch.tensor(WHITE)
    colours = torch.cat([b[:, :3] for b in borders])
    median = colours.median(dim=0).values
    alike = ((colours - median).abs() <= TOLERANCE).all(-1) & ~transparent
    return median if alike.float().mean() >= SHARE else None


def foreground_masks(dataset: InputDataset, background: Float[Tensor, "3"]) -> list[Bool[Tensor, "_height _width"]]:
    """The foreground of every photo of a dataset in front of a uniform background; see `foreground_mask`."""
    photos = (torch.from_numpy(dataset.get_numpy_image(index)).float() / 255 for index in range(len(dataset)))
    return [foreground_mask(photo, background) for photo in photos]


def foreground_mask(
    image: Float[Tensor, "height width channels"], background: Float[Tensor, "3"]
) -> Bool[Tensor, "height width"]:
    """The pixels that show the object.

    In an image with transparent pixels these are the others. In an opaque image they are the pixels that differ from
    the background by more than 0.05 in any channel.

    Args:
        image: RGB or RGBA with straight alpha, in [0, 1].
        background: RGB in [0, 1].
    """
    opaque = (image[..., 3:] >= TOLERANCE).all(-1)  # all True without alpha
    return ((image[..., :3] - background).abs() > TOLERANCE).any(-1) if opaque.all() else opaque


def _border(image: Float[Tensor, "height width channels"]) -> Float[Tensor, "pixels channels"]:
    return torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
