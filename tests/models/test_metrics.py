import math

import pytest
import torch

from dietnerf_ns.models.metrics import (
    LazyLPIPS,
    black_outside,
    missing_metrics,
    psnr_inside,
    without_means_of_missing,
    without_missing,
)


def model_with(lpips):
    model = torch.nn.Module()
    model.lpips = lpips
    return model


def test_lpips_that_cannot_be_loaded_is_left_out_with_the_reason(monkeypatch):
    def refuse(**_):
        raise OSError("no network")

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", refuse)
    lpips = LazyLPIPS(normalize=True)
    image = torch.rand(1, 3, 8, 8)
    metrics = {"psnr": 20.0, "lpips": float(lpips(image, image)), "fine_lpips": float("nan")}
    assert without_missing(metrics, model_with(lpips)) == {"psnr": 20.0}
    assert missing_metrics(model_with(lpips)) == {"lpips": "no network"}


def test_lpips_that_does_not_fit_into_memory_once_is_not_given_up(monkeypatch):
    def too_large(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", too_large)
    lpips = LazyLPIPS(normalize=True)
    with pytest.raises(torch.OutOfMemoryError):
        lpips(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    assert lpips.missing_because is None


def test_lpips_that_fails_at_a_later_image_is_left_out_of_the_means(monkeypatch):
    class Network:  # stands in for torchmetrics' class, whose backbone is a download
        def __init__(self, **settings):
            pass

        def to(self, device):
            return self

        def __call__(self, target, prediction):
            assert target.shape[-1] > 8, "too small"
            return torch.tensor(0.25)

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", Network)
    lpips, images = LazyLPIPS(normalize=True), (torch.rand(1, 3, 16, 16), torch.rand(1, 3, 8, 8))
    model = model_with(lpips)
    of_images = [without_missing({"psnr": 20.0, "lpips": float(lpips(image, image))}, model) for image in images]
    assert [list(metrics) for metrics in of_images] == [["psnr", "lpips"]] * 2 and math.isnan(of_images[1]["lpips"])
    means = {"psnr": 20.0, "psnr_std": 0.0, "lpips": math.nan, "lpips_std": math.nan, "fine_lpips": math.nan}
    assert without_means_of_missing(means, model) == {"psnr": 20.0, "psnr_std": 0.0}
    assert "too small" in missing_metrics(model)["lpips"]


def test_lpips_is_computed_where_its_backbone_is_there(monkeypatch):
    calls = []

    class Network:  # stands in for torchmetrics' class, whose backbone is a download
        def __init__(self, **settings):
            calls.append(settings)

        def to(self, device):
            return self

        def __call__(self, target, prediction):
            return (target - prediction).abs().mean()

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", Network)
    lpips = LazyLPIPS(normalize=True)
    assert calls == [], "not before the first evaluation"
    metrics = {"lpips": float(lpips(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)))}
    assert without_missing(metrics, model_with(lpips)) == {"lpips": 1.0} and missing_metrics(model_with(lpips)) == {}
    LazyLPIPS()(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    assert calls == [{"normalize": True}, {}], "loaded once each, with the settings of the method"


def test_an_image_is_black_outside_a_mask_whatever_it_was_there():
    mask = torch.tensor([[[True], [False]]])
    image = torch.tensor([[[0.2, 0.4, 0.6], [0.5, float("nan"), float("inf")]]])
    assert torch.equal(black_outside(mask, image), torch.tensor([[[0.2, 0.4, 0.6], [0.0, 0.0, 0.0]]]))


def test_psnr_of_black_outside_images_becomes_that_of_the_pixels_inside():
    mask = torch.zeros(10, 10, 1, dtype=torch.bool)
    mask[:, :1] = True
    metrics = {"psnr": 30.0, "coarse_psnr": 25.0, "fine_psnr": math.inf, "ssim": 0.9, "lpips": 0.1}
    inside = {"psnr": 20.0, "coarse_psnr": 15.0, "fine_psnr": math.inf, "ssim": 0.9, "lpips": 0.1}
    assert psnr_inside(mask, metrics) == pytest.approx(inside)


def test_psnr_with_a_mask_that_covers_everything_is_unchanged_to_the_bit():
    metrics = {"psnr": 23.456789, "ssim": 0.9}
    assert psnr_inside(torch.ones(7, 9, 1, dtype=torch.bool), metrics) == metrics


def test_psnr_of_no_pixels_is_not_defined():
    mask = torch.zeros(4, 4, 1, dtype=torch.bool)
    assert math.isnan(psnr_inside(mask, {"psnr": math.inf})["psnr"])
