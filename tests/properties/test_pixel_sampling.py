"""The pixels that training rays go through."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dietnerf_ns.data.pixel_samplers import (
    CENTRE_FRACTION,
    ForegroundPixelSamplerConfig,
    MaskedPixelSampler,
    SinglePhotoPixelSamplerConfig,
)
from dietnerf_ns.utils.errors import UserError
from tests.properties.strategies import floats, seeds

shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))  # photos, rows, columns
counts = st.integers(1, 40)


def masks(shape):
    return hnp.arrays(bool, shape).map(torch.from_numpy)


def are_pixels(indices: torch.Tensor, shape: tuple[int, int, int], count: int) -> bool:
    inside = (indices >= 0).all() and (indices < torch.tensor(shape)).all()
    return indices.shape == (count, 3) and bool(inside)


def batch_of(shape: tuple[int, int, int], mask: torch.Tensor | None = None) -> dict:
    batch = {"image": torch.zeros(*shape, 3), "image_idx": torch.arange(shape[0])}
    return batch if mask is None else batch | {"mask": mask[..., None]}


@given(shapes, counts, seeds, st.data())
def test_masked_rays_lie_inside_the_masks(shape, count, seed, data):
    """As many pixels are drawn as asked for, each exists and is inside its photo's mask, however small it is. Without
    a pixel inside there is an error and no ray."""
    mask = data.draw(masks(shape))
    sampler = MaskedPixelSampler(ForegroundPixelSamplerConfig())
    torch.manual_seed(seed)
    if not mask.any():
        with pytest.raises(UserError, match="The masks leave no pixel"):
            sampler.rejection_sample_mask(mask[..., None], count, *shape)
        return
    indices = sampler.rejection_sample_mask(mask[..., None], count, *shape)
    assert are_pixels(indices, shape, count) and mask[tuple(indices.T)].all()
    for_photos_elsewhere = sampler.rejection_sample_mask(mask[..., None], count, *shape, device="meta")
    assert for_photos_elsewhere.device.type == "meta" and for_photos_elsewhere.shape == (count, 3)


@given(shapes, counts, floats(0, 1), seeds, st.data())
def test_foreground_rays_come_first_and_lie_in_the_widened_foreground(shape, count, share, seed, data):
    """The configured share of the rays lies in the foreground or its margin, and inside the masks if there are any; all
    others are pixels of the batch."""
    foreground = data.draw(masks(shape))
    mask = data.draw(st.none() | masks(shape))
    assume(mask is None or mask.any())
    sampler = ForegroundPixelSamplerConfig(subject_share=share).setup(num_rays_per_batch=count)
    sampler.set_foreground(list(foreground))
    torch.manual_seed(seed)
    indices = sampler.collate_image_dataset_batch(batch_of(shape, mask), count)["indices"]
    assert are_pixels(indices, shape, count)
    assert mask is None or mask[tuple(indices.T)].all()
    if share == 0:
        return
    widened = torch.stack([sampler.foreground(photo) for photo in range(shape[0])])
    if (widened if mask is None else widened & mask).any():
        assert widened[tuple(indices[: round(share * count)].T)].all()


@given(shapes, counts, seeds, st.none() | st.integers(0, 20))
def test_rays_of_one_photo(shape, count, seed, step):
    """All rays of a step go through one photo, in the first steps through the middle half of its sides."""
    sampler = SinglePhotoPixelSamplerConfig(centre_steps=10).setup(num_rays_per_batch=count)
    if step is not None:
        sampler.begin_step(step)
    torch.manual_seed(seed)
    indices = sampler.sample_method(count, *shape)
    assert are_pixels(indices, shape, count) and len(set(indices[:, 0].tolist())) == 1
    if step is not None and step < 10:
        size = np.array(shape[1:])
        margin = size * (1 - CENTRE_FRACTION) / 2
        places = indices[:, 1:].numpy()
        assert (places >= np.floor(margin)).all() and (places <= size - margin).all()
