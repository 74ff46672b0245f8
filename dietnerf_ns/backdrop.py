"""Whether all photos show their thing on one and the same background, and which pixels are not background."""

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


def one_background(dataset: InputDataset) -> Float[Tensor, "3"] | None:
    """The one background of a dataset's photos, of which at most 20 are looked at; see `border_colour`."""
    return border_colour(dataset.get_image_float32(index) for index in looked_at(dataset))


def looked_at(dataset: InputDataset) -> range:
    """Indices of at most 20 photos, spread over the dataset."""
    return range(0, len(dataset), max(1, -(-len(dataset) // MAX_PHOTOS)))


def border_colour(images: Iterable[Float[Tensor, "height width channels"]]) -> Float[Tensor, "3"] | None:
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


def stands_out(image: Float[Tensor, "*shape channels"], background: Float[Tensor, "3"]) -> Bool[Tensor, "*shape"]:
    """Pixels that are further than 0.05 from the background's colour in any channel, and not transparent.

    Args:
        image: RGB or RGBA with straight alpha, in [0, 1].
        background: RGB in [0, 1].
    """
    opaque = (image[..., 3:] >= TOLERANCE).all(-1)  # all True without alpha
    return opaque & ((image[..., :3] - background.to(image.device)).abs() > TOLERANCE).any(-1)


def _border(image: Float[Tensor, "height width channels"]) -> Float[Tensor, "pixels channels"]:
    return torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
