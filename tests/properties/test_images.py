"""Reduced images and crops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dietnerf_ns.utils.images import downscale_by_area
from tests.properties.strategies import seeds

sides = st.integers(1, 12)


@st.composite
def images_and_sizes(draw, channels: int):
    """An image and a size (width, height) that is not larger."""
    height, width = draw(sides), draw(sides)
    image = draw(hnp.arrays(np.uint8, (height, width, channels)))
    return image, (draw(st.integers(1, width)), draw(st.integers(1, height)))


def premultiplied(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image[..., :3] * (image[..., 3:] / 255), image[..., 3:]], axis=-1).astype(np.float64)


@given(images_and_sizes(3))
def test_reducing_keeps_the_mean_and_the_range(case):
    """Averaging over areas keeps the mean colour, up to the rounding of each pixel, and exceeds neither the darkest nor
    the brightest value."""
    image, size = case
    reduced = downscale_by_area(image, size)
    assert reduced.shape == (size[1], size[0], 3) and reduced.dtype == np.uint8
    assert np.abs(reduced.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() <= 0.51
    assert (reduced.min(axis=(0, 1)) >= image.min(axis=(0, 1))).all()
    assert (reduced.max(axis=(0, 1)) <= image.max(axis=(0, 1))).all()


@given(images_and_sizes(4))
def test_reducing_keeps_the_mean_of_what_is_seen(case):
    """With transparency, the mean of colour times alpha and that of alpha are kept up to rounding: half a level of
    alpha, and half a level of colour plus what the rounding of alpha changes."""
    image, size = case
    reduced = downscale_by_area(image, size)
    before, after = premultiplied(image).mean(axis=(0, 1)), premultiplied(reduced).mean(axis=(0, 1))
    assert abs(after[3] - before[3]) <= 0.51
    assert np.abs(after[:3] - before[:3]).max() <= 1.01


@given(images_and_sizes(4), seeds)
def test_hidden_colours_leave_no_trace(case, seed):
    """The colour of transparent pixels has no effect on the reduced image."""
    image, size = case
    image[..., 3] *= image[..., 3] % 3 == 0  # about two thirds are transparent
    other = image.copy()
    hidden = image[..., 3] == 0
    other[hidden, :3] = np.random.default_rng(seed).integers(0, 256, (hidden.sum(), 3))
    assert (downscale_by_area(image, size) == downscale_by_area(other, size)).all()


@given(images_and_sizes(3))
def test_opaque_images_with_and_without_alpha_agree(case):
    """An alpha of 255 everywhere changes nothing."""
    image, size = case
    with_alpha = np.concatenate([image, np.full((*image.shape[:2], 1), 255, np.uint8)], axis=-1)
    reduced = downscale_by_area(with_alpha, size)
    assert (reduced[..., 3] == 255).all()
    assert np.abs(reduced[..., :3].astype(int) - downscale_by_area(image, size)).max() <= 1


@given(images_and_sizes(4))
def test_composing_and_reducing_commute(case):
    """On a white background it makes no difference, up to rounding, whether an image is composed or reduced first."""
    image, size = case

    def on_white(rgba: np.ndarray) -> np.ndarray:
        return premultiplied(rgba)[..., :3] + 255 - rgba[..., 3:]

    first_composed = downscale_by_area(np.rint(on_white(image)).astype(np.uint8), size)
    assert np.abs(on_white(downscale_by_area(image, size)) - first_composed).max() <= 2.01
