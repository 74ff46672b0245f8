import copy

import pytest
import torch
from nerfstudio.data.pixel_samplers import PatchPixelSampler, PixelSamplerConfig

from dietnerf_ns.data.pixel_samplers import (
    ForegroundPixelSamplerConfig,
    MaskedPixelSampler,
    PatchSamplerConfig,
    SinglePhotoPixelSamplerConfig,
)
from dietnerf_ns.methods import dietnerf_tiny, dietnerf_vanilla
from dietnerf_ns.utils.errors import UserError
from tests.helpers.models import Storages


def sampler(step=None, **settings):
    sampler = SinglePhotoPixelSamplerConfig(**settings).setup(num_rays_per_batch=400)
    if step is not None:
        sampler.begin_step(step)
    return sampler


def test_a_step_takes_its_rays_from_one_photo_and_all_photos_get_their_turn():
    torch.manual_seed(0)
    batches = [sampler().sample_method(400, 3, 10, 20) for _ in range(20)]
    assert all(len(batch[:, 0].unique()) == 1 for batch in batches)
    assert {int(batch[0, 0]) for batch in batches} == {0, 1, 2}
    assert batches[0][:, 1].unique().tolist() == list(range(10))
    assert batches[0][:, 2].unique().tolist() == list(range(20))


@pytest.mark.parametrize("step, rows, columns", [(499, (5, 14), (10, 29)), (500, (0, 19), (0, 39))])
def test_first_steps_stay_in_the_centre(step, rows, columns):
    torch.manual_seed(0)
    indices = sampler(step).sample_method(4000, 2, 20, 40)
    assert (int(indices[:, 1].min()), int(indices[:, 1].max())) == rows
    assert (int(indices[:, 2].min()), int(indices[:, 2].max())) == columns


def test_masked_pixels_are_never_taken():
    mask = torch.zeros(2, 10, 10, 1)
    mask[0, :5], mask[1, 5:] = 1, 1
    torch.manual_seed(0)
    for _ in range(10):
        indices = sampler().sample_method(30, 2, 10, 10, mask=mask)
        assert mask[indices[:, 0], indices[:, 1], indices[:, 2]].all()


def test_the_papers_method_samples_like_this_and_is_told_the_step(tiny_pipeline_config):
    wanted = copy.deepcopy(dietnerf_vanilla.config.pipeline.datamanager.pixel_sampler)  # setting it up changes it
    assert isinstance(wanted, SinglePhotoPixelSamplerConfig) and wanted.centre_steps == 500
    tiny_pipeline_config.datamanager.pixel_sampler = wanted
    pipeline = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    datamanager = pipeline.datamanager

    def rows_near_the_border():
        return bool((datamanager.next_train(0)[1]["indices"][:, 1] < 25).any())

    assert rows_near_the_border(), "ns-export asks for rays of whole photos"
    pipeline.get_train_loss_dict(0)
    assert not rows_near_the_border()
    pipeline.get_train_loss_dict(700)
    assert rows_near_the_border()
    pipeline.collapse_detector.restart(600)
    pipeline.get_train_loss_dict(700)
    assert not rows_near_the_border(), "a new initialisation starts in the centre again"


@pytest.mark.parametrize("inside", [0.5, 0.001])
def test_masks_of_a_single_photo_and_small_ones_work(inside):
    """A capture of 10 to 19 photos has a single evaluation photo."""
    mask = (torch.rand(1, 60, 60, 1, generator=torch.Generator().manual_seed(0)) < inside).float()
    for config in (ForegroundPixelSamplerConfig(), SinglePhotoPixelSamplerConfig()):
        indices = config.setup(num_rays_per_batch=8).sample_method(5000, 1, 60, 60, mask=mask)
        assert indices.shape == (5000, 3) and mask[indices[:, 0], indices[:, 1], indices[:, 2]].all()
        assert len(indices.unique(dim=0)) >= min(1000, int(mask.sum())), "uniform over the mask"


def test_masks_that_leave_no_pixel_are_refused():
    with pytest.raises(UserError, match="masks leave no pixel"):
        sampler().sample_method(5, 2, 10, 10, mask=torch.zeros(2, 10, 10, 1))


@pytest.mark.parametrize(("asked", "given"), [(1, 2), (7, 6), (8, 8)])
def test_photos_of_several_sizes_get_an_even_number_of_rays(asked, given):
    """instant-ngp's number of rays, which follows the number of samples, is odd every second time."""
    images = [torch.rand(4, 6, 3), torch.rand(6, 4, 3)]
    batch = (
        SinglePhotoPixelSamplerConfig()
        .setup(num_rays_per_batch=asked)
        .sample({"image": images, "image_idx": torch.tensor([3, 5])})
    )
    assert batch["image"].shape == (given, 3) and set(batch["indices"][:, 0].tolist()) <= {3, 5}


def squares():
    """In two photos of 50 x 100 pixels a square of 4 x 4."""
    masks = torch.zeros(2, 50, 100, dtype=torch.bool)
    masks[0, 10:14, 20:24] = masks[1, 30:34, 70:74] = True
    return list(masks)


def foreground_sampler(masks=None, **settings):
    sampler = ForegroundPixelSamplerConfig(**settings).setup(num_rays_per_batch=1000)
    sampler.set_foreground(squares() if masks is None else masks)
    return sampler


def share_near_the_squares(sampler, *, photos=(0, 1), **batch):
    torch.manual_seed(0)
    photos = torch.tensor(photos)
    batch = {"image": torch.rand(len(photos), 50, 100, 3), "image_idx": photos} | batch
    indices = torch.cat([sampler.sample(batch)["indices"] for _ in range(5)])
    starts = torch.tensor([[9, 19], [29, 69]])[indices[:, 0]]  # with a margin of one pixel, 2 % of 50
    return float(((indices[:, 1:] >= starts) & (indices[:, 1:] < starts + 6)).all(-1).float().mean())


def test_a_share_of_the_rays_passes_through_the_foreground_and_its_margin():
    area = 36 / 5000
    assert share_near_the_squares(foreground_sampler(subject_share=0.7)) == pytest.approx(0.7 + 0.3 * area, abs=0.01)
    assert share_near_the_squares(foreground_sampler(subject_share=1.0)) == 1.0
    for uniform in (foreground_sampler(subject_share=0.0), foreground_sampler(masks=())):
        assert share_near_the_squares(uniform) == pytest.approx(area, abs=0.01)


def test_masked_foreground_is_not_sampled():
    mask = torch.ones(2, 50, 100, 1)
    mask[0, 8:16, 18:26] = 0
    sampler = foreground_sampler(subject_share=0.9)
    assert share_near_the_squares(sampler, mask=mask) == pytest.approx(0.9, abs=0.02)
    batch = {"image": torch.rand(2, 50, 100, 3), "image_idx": torch.arange(2), "mask": mask}
    indices = sampler.sample(batch)["indices"]
    assert mask[indices[:, 0], indices[:, 1], indices[:, 2]].all()


def test_the_foreground_is_that_of_the_photos_in_the_batch():
    sampler = foreground_sampler(subject_share=1.0)
    for photos in ((0, 1), (1,), (1, 0), (0,)):
        assert share_near_the_squares(sampler, photos=photos) == 1.0


def test_without_foreground_rays_are_uniform():
    nothing = foreground_sampler(masks=[torch.zeros(50, 100, dtype=torch.bool)] * 2, subject_share=1.0)
    assert share_near_the_squares(nothing) < 0.01


def test_photos_of_different_sizes_are_sampled_as_nerfstudio_does():
    sampler = foreground_sampler(masks=[squares()[0], squares()[1][:40]], subject_share=1.0)
    batch = {"image": [torch.rand(50, 100, 3), torch.rand(40, 100, 3)], "image_idx": torch.arange(2)}
    assert sampler.sample(batch)["indices"][:, 1:].float().std(dim=0).min() > 10
    assert sampler.foreground_share == 0 and foreground_sampler(subject_share=0.7).foreground_share == 0.7


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_share(share):
    with pytest.raises(UserError, match="subject-share"):
        foreground_sampler(subject_share=share)


def test_the_methods_sample_the_foreground_of_photos_with_a_uniform_background(tiny_pipeline_config):
    assert isinstance(dietnerf_tiny.config.pipeline.datamanager.pixel_sampler, ForegroundPixelSamplerConfig)
    datamanager = tiny_pipeline_config.setup(device="cpu", test_mode="val").datamanager
    assert all(datamanager.train_pixel_sampler.foreground(photo).any() for photo in range(8))
    assert datamanager.eval_pixel_sampler.foreground_share == 0, "all of an evaluation image counts"
    white = (datamanager.next_train(0)[1]["image"] > 0.95).all(-1).float().mean()
    datamanager.train_pixel_sampler.config.subject_share = 0.0
    assert white < 0.6 * (datamanager.next_train(0)[1]["image"] > 0.95).all(-1).float().mean()


def test_the_list_of_foreground_pixels_takes_four_bytes_a_pixel():
    """With 200 photos of 1080p it would otherwise be gigabytes."""
    masks = [torch.ones(50, 100, dtype=torch.bool)] * 3
    sampler = foreground_sampler(masks=masks, subject_share=1.0)
    with Storages() as storages:
        sampler.sample({"image": torch.rand(3, 50, 100, 3), "image_idx": torch.arange(3)})
        kept = 4 * storages.numbers_alive()
    assert kept <= 3 * 5000 * 4 + 3 * 5000 * 3 * 4 + 50_000, "besides the photos in float32 and one batch"


def test_patches_can_be_asked_for(tiny_pipeline_config):
    tiny_pipeline_config.datamanager.patch_size = 4
    datamanager = tiny_pipeline_config.setup(device="cpu", test_mode="val").datamanager
    assert isinstance(datamanager.train_pixel_sampler, PatchPixelSampler)
    assert datamanager.train_pixel_sampler.config.patch_size == 4
    assert isinstance(datamanager.config.pixel_sampler, ForegroundPixelSamplerConfig), "as it was asked for"


@pytest.mark.parametrize("side", [3, 4, 5])
def test_patches_reach_every_pixel_without_and_with_masks(side):
    sampler = PatchSamplerConfig(patch_size=side).setup(num_rays_per_batch=side**2)
    for mask in (None, torch.ones(2, 5, 6, 1)):
        rows_and_columns = sampler.sample_method(side**2 * 500, 2, 5, 6, mask=mask)
        patch = rows_and_columns.view(500, side, side, 3)
        assert (patch[:, 1:, :, 1] - patch[:, :-1, :, 1] == 1).all() and (
            patch[:, :, 1:, 1] == patch[:, :, :-1, 1]
        ).all()
        assert (patch[:, :, 1:, 2] - patch[:, :, :-1, 2] == 1).all() and (patch[:, :1, :1, 0] == patch[..., 0]).all()
        assert {tuple(pixel) for pixel in rows_and_columns.tolist()} == {
            (photo, row, column) for photo in range(2) for row in range(5) for column in range(6)
        }


@pytest.mark.parametrize("side", [3, 4])
def test_the_only_patch_that_fits_into_a_mask_is_found(side):
    mask = torch.zeros(1, 9, 9, 1)
    mask[:, 2 : 2 + side, 4 : 4 + side] = 1
    sampler = PatchSamplerConfig(patch_size=side).setup(num_rays_per_batch=side**2)
    rays = sampler.sample_method(side**2, 1, 9, 9, mask=mask)
    assert [tuple(ray) for ray in rays.tolist()] == [(0, 2 + i // side, 4 + i % side) for i in range(side**2)]


def test_masks_in_which_no_patch_fits_are_refused():
    sampler = PatchSamplerConfig(patch_size=4).setup(num_rays_per_batch=16)
    mask = torch.zeros(1, 8, 8, 1)
    mask[:, 3:5, 3:5] = 1
    with pytest.raises(UserError, match="patch-size 4: no patch of this size fits into the masks"):
        sampler.sample_method(16, 1, 8, 8, mask=mask)


def test_another_pixel_sampler_can_be_asked_for(tiny_pipeline_config):
    tiny_pipeline_config.datamanager.pixel_sampler = PixelSamplerConfig()
    datamanager = tiny_pipeline_config.setup(device="cpu", test_mode="val").datamanager
    assert type(datamanager.train_pixel_sampler) is MaskedPixelSampler, "nerfstudio's, without its faults"
