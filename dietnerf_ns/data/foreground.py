"""Whether all photos show their thing on one and the same background, and where they show it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

MAX_PHOTOS = 20
TOLERANCE = 0.05
SHARE = 0.9
WHITE = (1.0, 1.0, 1.0)


def uniform_background(dataset: InputDataset) -> Float[Tensor, "3"] | None:
    """The one background of a dataset's photos, of which at most 20 are looked at; see `border_color`."""
    step = -(-len(dataset) // MAX_PHOTOS)
    return border_color(dataset.get_image_float32(index) for index in range(0, len(dataset), step))


def border_color(images: Iterable[Float[Tensor, "height width channels"]]) -> Float[Tensor, "3"] | None:
    """The colour that the images' outermost pixels have in common.

    Nine tenths of them have to be within 0.05 of their median colour, in every channel, or transparent: then the
    background can be of any colour, and white is taken.

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


def foreground_masks(dataset: InputDataset, background: Float[Tensor, "3"]) -> list[Bool[Tensor, "height width"]]:
    """The foreground of every photo of a dataset; see `foreground_mask`."""
    photos = (torch.from_numpy(dataset.get_numpy_image(index)).float() / 255 for index in range(len(dataset)))
    return [foreground_mask(photo, background) for photo in photos]


def foreground_mask(
    image: Float[Tensor, "height width channels"], background: Float[Tensor, "3"]
) -> Bool[Tensor, "height width"]:
    """What is not transparent, or in an image without transparent pixels what differs from the background.

    By more than 0.05 in any channel.

    Args:
        image: RGB or RGBA with straight alpha, in [0, 1].
        background: RGB in [0, 1].
    """
    opaque = (image[..., 3:] >= TOLERANCE).all(-1)  # all True without alpha
    return ((image[..., :3] - background).abs() > TOLERANCE).any(-1) if opaque.all() else opaque


def _border(image: Float[Tensor, "height width channels"]) -> Float[Tensor, "pixels channels"]:
    return torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
