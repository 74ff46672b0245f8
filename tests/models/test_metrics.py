import pytest
import torch

from dietnerf_ns.models.metrics import LazyLPIPS, missing_metrics, without_missing


def missing(lpips):
    model = torch.nn.Module()
    model.lpips = lpips
    return missing_metrics(model)


def test_lpips_that_cannot_be_loaded_is_left_out_with_the_reason(monkeypatch):
    def refuse(**_):
        raise OSError("no network")

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", refuse)
    lpips = LazyLPIPS(normalize=True)
    image = torch.rand(1, 3, 8, 8)
    metrics = {"psnr": 20.0, "lpips": float(lpips(image, image)), "fine_lpips": float("nan")}
    assert without_missing(metrics, lpips) == {"psnr": 20.0}
    assert missing(lpips) == {"lpips": "no network"}


def test_lpips_that_does_not_fit_into_memory_once_is_not_given_up(monkeypatch):
    def too_large(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", too_large)
    lpips = LazyLPIPS(normalize=True)
    with pytest.raises(torch.OutOfMemoryError):
        lpips(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    assert lpips.missing_because is None


def test_lpips_is_computed_where_its_backbone_is_there(monkeypatch):
    calls = []

    class Network:  # stands in for torchmetrics' class, whose backbone is a download
        def __init__(self, normalize):
            calls.append(normalize)

        def to(self, device):
            return self

        def __call__(self, target, prediction):
            return (target - prediction).abs().mean()

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", Network)
    lpips = LazyLPIPS(normalize=True)
    assert calls == [], "not before the first evaluation"
    metrics = {"lpips": float(lpips(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)))}
    assert without_missing(metrics, lpips) == {"lpips": 1.0} and missing(lpips) == {}
    assert calls == [True], "loaded once, with normalize as nerfstudio asks for"
