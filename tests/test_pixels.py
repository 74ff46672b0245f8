import pytest
import torch

from dietnerf_ns.methods import dietnerf_vanilla
from dietnerf_ns.pixels import OnePhotoPixelSamplerConfig


def sampler(step=None, **settings):
    sampler = OnePhotoPixelSamplerConfig(**settings).setup(num_rays_per_batch=400)
    sampler.step = step
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
    wanted = dietnerf_vanilla.config.pipeline.datamanager.pixel_sampler
    assert isinstance(wanted, OnePhotoPixelSamplerConfig) and wanted.centre_steps == 500
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
