"""Collapsed training is noticed and started again."""

import json
import math
from types import SimpleNamespace
from unittest.mock import ANY

import pytest
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.engine.optimizers import Optimizers

from dietnerf_ns.data.dataset import AreaDownscaledDataset
from dietnerf_ns.data.pixel_samplers import ForegroundPixelSamplerConfig, SinglePhotoPixelSamplerConfig
from dietnerf_ns.training.collapse import CollapseDetector, photo_variance
from tests.helpers.commands import in_this_process


class FakePhotos(InputDataset):
    """Not a dataset: two photos of 2 x 1 pixels."""

    def __init__(self, *masks):
        self.masks = masks
        self.images = [torch.tensor([[[0.0, 0, 0], [1, 1, 1]]]), torch.tensor([[[1.0, 0, 0], [1, 1, 0]]])]

    def __len__(self):
        return len(self.images)

    def get_data(self, image_idx, image_type="uint8"):
        assert image_type == "float32"
        return {"image": self.images[image_idx]} | ({"mask": self.masks[image_idx]} if self.masks else {})


def watch(detector, steps, *, psnr, opacity, first=0, total_steps=4000, **arguments):
    """The first message with its step, or None; one colour everywhere would have 10 dB."""
    seen = {"mse": torch.tensor(10 ** (-psnr / 10)), "opacity": torch.tensor(float(opacity))}
    for step in range(first, first + steps):
        message = detector.update(step, **seen, total_steps=total_steps, photo_variance=0.1, **arguments)
        if message:
            return step, message
    return None


def test_photo_variance_by_hand():
    # channels over the four pixels: (0, 1, 1, 1), (0, 1, 0, 1), (0, 1, 0, 0)
    uniform = PixelSamplerConfig().setup(num_rays_per_batch=1)
    assert photo_variance(FakePhotos(), lambda image: image, uniform) == pytest.approx((3 / 16 + 1 / 4 + 3 / 16) / 3)


def test_photo_variance_is_that_of_the_rays_that_are_taken():
    sampler = ForegroundPixelSamplerConfig(subject_share=0.6).setup(num_rays_per_batch=1)
    sampler.set_foreground([torch.tensor([[False, True]]), torch.tensor([[True, True]])])
    red, green, blue = 0.9 * 0.1, 0.6 * 0.4, 0.3 * 0.7  # the pixels' probabilities are 0.1, 0.3, 0.3, 0.3
    assert photo_variance(FakePhotos(), lambda image: image, sampler) == pytest.approx((red + green + blue) / 3)


def test_photo_variance_is_that_of_the_pixels_inside_masks_unless_these_are_ignored():
    masks = [torch.tensor([[[True], [False]]]), torch.tensor([[[True], [True]]])]
    colours = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]])
    inside = float((colours - colours.mean(dim=0)).square().mean())
    sampler = PixelSamplerConfig().setup(num_rays_per_batch=1)
    assert photo_variance(FakePhotos(*masks), lambda image: image, sampler) == pytest.approx(inside)
    sampler.config.ignore_mask = True
    everywhere = photo_variance(FakePhotos(*masks), lambda image: image, sampler)
    assert everywhere == pytest.approx((3 / 16 + 1 / 4 + 3 / 16) / 3)


@pytest.mark.parametrize("ignore_mask", [False, True])
@pytest.mark.parametrize("seen", [True, False])
def test_photo_variance_is_that_of_sampled_rays(seen, ignore_mask):
    """With masks and a foreground, of which something is inside the masks or nothing."""
    torch.manual_seed(0)
    inside, foreground = torch.zeros(2, 2, 20, 30, dtype=torch.bool)
    inside[:, :, :20] = True
    inside[1, 10:] = False
    foreground[0, 3:9, 4:12] = foreground[1, :, 16:29] = seen
    photos = FakePhotos(*inside[..., None])
    colours = torch.rand(2, 20, 30, 3) ** 3 * (1 - 0.8 * foreground[..., None])
    photos.images = list(torch.where(inside[..., None], colours, 1.0))
    sampler = ForegroundPixelSamplerConfig(subject_share=0.7, ignore_mask=ignore_mask).setup(num_rays_per_batch=200_000)
    sampler.set_foreground(list(foreground))
    batch = {"image": torch.stack(photos.images), "image_idx": torch.arange(2), "mask": inside[..., None]}
    colours = sampler.sample(batch if not ignore_mask else {key: batch[key] for key in ("image", "image_idx")})["image"]
    expected = float((colours - colours.mean(dim=0)).square().mean())
    assert photo_variance(photos, lambda image: image, sampler) == pytest.approx(expected, rel=0.02)


def test_a_run_resumed_for_fewer_steps_judges_the_mean_over_the_steps_seen():
    """Its windows are shorter than the one that the checkpoint is in the midst of."""
    detector = CollapseDetector()
    assert watch(detector, 701, psnr=15, opacity=0.4, total_steps=10_000) is None
    assert (detector.windows, detector.steps) == (2, 201)
    assert watch(detector, 30, psnr=15.5, opacity=0.4, first=701, total_steps=2201) is None
    assert detector.windows == 3 and 15.0 < detector.last_psnr < 15.1


def test_windows_with_other_rays_are_not_judged():
    assert watch(CollapseDetector(), 4000, psnr=5, opacity=0, other_rays=500)[0] == 599
    assert watch(CollapseDetector(), 4000, psnr=5, opacity=0, other_rays=501)[0] == 699
    detector = CollapseDetector()
    detector.restart(1000)
    assert watch(detector, 4000, psnr=5, opacity=0, first=1000, other_rays=500)[0] == 1599
    with_a_step_left_out = CollapseDetector()
    assert watch(with_a_step_left_out, 490, psnr=5, opacity=0, other_rays=500) is None
    assert watch(with_a_step_left_out, 4000, psnr=5, opacity=0, first=495, other_rays=500)[0] == 604
    assert watch(CollapseDetector(), 900, psnr=5, opacity=0, other_rays=500, total_steps=900) == (549, ANY), "late"


def test_the_first_window_is_not_judged_also_if_a_step_of_it_was_left_out():
    detector = CollapseDetector()
    assert watch(detector, 50, psnr=5, opacity=0) is None
    assert watch(detector, 4000, psnr=5, opacity=0, first=51)[0] == 200


def test_a_field_no_better_than_one_colour_has_collapsed():
    step, message = watch(CollapseDetector(), 4000, psnr=9.4, opacity=0.0)
    assert step == 199, "the first window of 100 steps is left to the start"
    assert "empty" in message and "PSNR 9.4" in message and "10.0 dB" in message
    assert "opaque" in watch(CollapseDetector(), 4000, psnr=10.4, opacity=1.0)[1]


def test_training_that_gets_anywhere_is_left_alone():
    detector = CollapseDetector()
    for window in range(14):
        assert watch(detector, 100, psnr=10.6 + 0.3 * window, opacity=1.0, first=100 * window) is None


def test_training_is_stuck_near_one_colour_and_not_further_up():
    detector = CollapseDetector()
    assert watch(detector, 300, psnr=12.0, opacity=0.3) == (199, ANY)
    detector.restart(300)
    assert watch(detector, 100, psnr=11.0, opacity=0.3, first=300) is None
    assert watch(detector, 100, psnr=12.0, opacity=0.3, first=400) is None, "a decibel better than before"
    step, message = watch(detector, 100, psnr=12.2, opacity=0.3, first=500)
    assert step == 599 and "of opacity 0.30" in message and "PSNR 12.2" in message
    assert watch(CollapseDetector(), 4000, psnr=13.1, opacity=0.3) is None


def test_only_the_first_third_is_watched():
    detector = CollapseDetector()
    assert watch(detector, 1400, psnr=20, opacity=0.5) is None
    assert watch(detector, 2600, psnr=5, opacity=0, first=1400) is None


def test_of_a_short_run_four_windows_are_watched():
    detector = CollapseDetector()
    assert watch(detector, 150, psnr=20, opacity=1, total_steps=300) is None
    assert watch(detector, 50, psnr=5, opacity=1, first=150, total_steps=300) == (199, ANY)
    detector = CollapseDetector()
    assert watch(detector, 200, psnr=20, opacity=1, total_steps=300) is None
    assert watch(detector, 100, psnr=5, opacity=1, first=200, total_steps=300) is None


def test_a_perfect_fit_is_no_error():
    assert watch(CollapseDetector(), 4000, psnr=math.inf, opacity=0.5) is None


def test_a_new_attempt_is_watched_from_its_start_and_a_hopeless_one_no_more():
    detector = CollapseDetector()
    detector.restart(1000)
    assert watch(detector, 4000, psnr=5, opacity=0, first=1000)[0] == 1199
    detector.given_up = True
    assert watch(detector, 4000, psnr=5, opacity=0, first=1200) is None


def test_a_resumed_run_decides_as_it_would_have():
    whole, stopped = CollapseDetector(), CollapseDetector()
    whole_message = watch(whole, 4000, psnr=5, opacity=0)
    assert watch(stopped, 130, psnr=5, opacity=0) is None
    state = json.loads(json.dumps(stopped.state()))  # numbers alone
    assert watch(CollapseDetector(**state), 4000, psnr=5, opacity=0, first=130) == whole_message


def test_a_run_is_restarted_only_while_enough_of_it_is_left():
    detector = CollapseDetector()
    assert detector.can_restart(199, limit=2, total_steps=300)
    assert not detector.can_restart(200, limit=2, total_steps=300), "two windows of 50 steps"
    assert detector.can_restart(549, limit=2, total_steps=1150, other_rays=500)
    assert not detector.can_restart(549, limit=2, total_steps=1149, other_rays=500)
    detector.restarts = 2
    assert not detector.can_restart(100, limit=2, total_steps=300)


@pytest.mark.parametrize("has_masks", [False, True])
def test_rays_through_the_centre_are_others_unless_there_are_masks(has_masks, tiny_pipeline_config, monkeypatch):
    tiny_pipeline_config.datamanager.pixel_sampler = SinglePhotoPixelSamplerConfig(centre_steps=70)
    pipeline = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    monkeypatch.setattr(AreaDownscaledDataset, "has_masks", has_masks)
    monkeypatch.setattr(pipeline.datamanager.train_dataset, "get_data", lambda *_, **__: {"image": torch.rand(2, 2, 3)})
    run = SimpleNamespace(optimizers=None, _start_step=0, config=SimpleNamespace(max_num_iterations=100))
    assert pipeline._callback_to_restart(run).kwargs["other_rays"] == (0 if has_masks else 70)


def test_a_collapse_too_late_for_a_restart_is_said_and_changes_nothing(tiny_pipeline_config, capsys):
    pipeline = tiny_pipeline_config.setup(device="cpu", test_mode="val")
    pipeline._fit_to_photos = {"mse": torch.tensor(0.2), "opacity": torch.tensor(1.0)}
    before = [parameter.clone() for parameter in pipeline.model.parameters()]
    for step in range(300):
        run = {"total_steps": 149, "photo_variance": 0.1, "other_rays": 0}
        pipeline._restart_if_collapsed(step, optimizers=Optimizers({}, {}), **run)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("Training collapsed at step 99: the scene is opaque") == 1
    assert "a single colour 10.0 dB; too few steps are left for a restart." in said
    after = pipeline.model.parameters()
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.slow
def test_ns_train_restarts_a_collapsed_run_at_most_twice(tmp_path):
    """A density that starts at 1e-30 stays empty whatever the initialisation."""
    arguments = ["--vis", "tensorboard", "--max-num-iterations", 420, "--pipeline.semantic.weight", 0]
    arguments += ["--pipeline.model.average-init-density", 1e-30]
    arguments += ["--pipeline.datamanager.train-num-rays-per-batch", 64]
    output = " ".join(in_this_process("ns-train", "dietnerf-tiny", *arguments, cwd=tmp_path).stdout.split())
    assert output.count("collapsed at step") == 2 and output.count("collapsed again") == 1
    assert "Restart 1 of 2" in output and "Restart 2 of 2" in output and "the scene is empty" in output
