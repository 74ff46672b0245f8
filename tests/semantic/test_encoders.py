import copy
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Normalize, Resize

from dietnerf_ns.semantic.encoders import EmbeddedEncoder, EncoderConfig, OpenClipEncoder
from dietnerf_ns.semantic.weights import load_open_clip
from dietnerf_ns.utils.errors import UserError
from tests.helpers.encoders import FakeEncoder
from tests.helpers.fakes import bare

SMALL_MODEL = "ViT-S-32"  # the smallest ViT of open-clip; weights are random here because none can be downloaded


@pytest.fixture(scope="module")
def random_clip_checkpoint(tmp_path_factory):
    """A real open-clip checkpoint file with random weights."""
    torch.manual_seed(0)
    model = open_clip.create_model(SMALL_MODEL)
    path = tmp_path_factory.mktemp("clip") / "random.pt"
    torch.save(model.state_dict(), path)
    return path, model.eval()


@pytest.fixture(scope="module")
def clip_encoder(random_clip_checkpoint):
    return OpenClipEncoder(SMALL_MODEL, str(random_clip_checkpoint[0]))


@pytest.fixture(scope="module")
def embedded_encoder():
    return EmbeddedEncoder()


@pytest.fixture
def photo(tiny_scene):
    """A photo-like RGB image, not square."""
    image = Image.open(tiny_scene / "train" / "r_0.png").convert("RGBA").resize((300, 240), Image.Resampling.BICUBIC)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def as_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def test_a_saved_checkpoint_gives_the_embedding_of_its_model(random_clip_checkpoint, clip_encoder, photo):
    _, model = random_clip_checkpoint
    inputs = clip_encoder.preprocess(as_tensor(photo))
    with torch.no_grad():
        expected = model.encode_image(inputs, normalize=True)
    assert torch.allclose(clip_encoder.embed(inputs), expected, atol=1e-6)


def test_openais_own_archive_format_loads(tmp_path, photo):
    """OpenAI's ViT-B-32.pt is TorchScript with weights in half precision; this one has random weights."""
    torch.manual_seed(0)
    model = open_clip.create_model(SMALL_MODEL, force_quick_gelu=True).eval()
    mask = model._buffers.pop("attn_mask")  # a constant in OpenAI's archives
    model.attn_mask = mask
    with torch.no_grad():
        traced = torch.jit.trace(model, (torch.rand(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long)))
    torch.jit.save(traced, tmp_path / "openai.pt")
    encoder = OpenClipEncoder(SMALL_MODEL, str(tmp_path / "openai.pt"))
    inputs = encoder.preprocess(as_tensor(photo))
    with torch.no_grad():
        assert torch.allclose(encoder.embed(inputs), model.encode_image(inputs, normalize=True), atol=1e-3)
    with pytest.raises(
        UserError, match="clip-model ViT-L-14: .* another model: patch_size 32, not 14, layers 12, not 24"
    ):
        load_open_clip("ViT-L-14", str(tmp_path / "openai.pt"), "cpu")


def test_preprocessing_is_open_clips_own(clip_encoder, photo):
    own = open_clip.image_transform(224, is_train=False)
    on_tensor = as_tensor(photo)
    for step in own.transforms:  # on the unrounded image: open-clip's PIL path rounds to 8 bits in between
        if isinstance(step, Resize | CenterCrop):
            on_tensor = step(on_tensor).clamp(0, 1)
        if isinstance(step, Normalize):
            on_tensor = step(on_tensor)
    assert (clip_encoder.preprocess(as_tensor(photo)) - on_tensor).abs().max() < 1e-3

    at_size = photo.resize((224, 224), Image.Resampling.BICUBIC)
    assert (clip_encoder.preprocess(as_tensor(at_size)) - own(at_size)[None]).abs().max() < 1e-3

    one_grey_level = 1 / 255 / 0.26
    assert (clip_encoder.preprocess(as_tensor(photo)) - own(photo)[None]).abs().max() < 2 * one_grey_level


def test_networks_without_a_class_token_are_refused():
    encoder = bare(OpenClipEncoder, network=torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="RN50 is no vision transformer with a class token; use projected"):
        encoder._watch_last_layer("RN50")


def test_class_token_is_the_last_layers_before_norm_and_projection(random_clip_checkpoint, photo):
    path, model = random_clip_checkpoint
    encoder = OpenClipEncoder(SMALL_MODEL, str(path), embedding="class-token")
    inputs = encoder.preprocess(as_tensor(photo))
    class_token = encoder.embed(inputs)
    assert class_token.shape[1] == model.visual.conv1.out_channels
    outputs = []
    with torch.no_grad(), model.visual.transformer.register_forward_hook(lambda *call: outputs.append(call[-1])):
        model.visual(inputs)
    assert torch.allclose(class_token, torch.nn.functional.normalize(outputs[0][:, 0], dim=-1), atol=1e-5)


def test_gradients_reach_every_pixel_and_no_weight(clip_encoder, embedded_encoder):
    for encoder in (clip_encoder, embedded_encoder):
        image = torch.rand(1, 3, 56, 56, requires_grad=True)
        encoder.embed(encoder.preprocess(image))[0, 0].backward()
        assert (image.grad.abs().sum(dim=1) > 0).float().mean() > 0.99
        assert not any(p.requires_grad or p.grad is not None for p in encoder.network.parameters())
        assert not encoder.network.training


def test_white_pixels_keep_their_gradient(embedded_encoder):
    image = torch.ones(1, 3, 56, 56, requires_grad=True)
    embedded_encoder.preprocess(image).sum().backward()
    assert (image.grad > 0).all()


def test_settings_of_clip_are_ignored_by_the_embedded_encoder_with_a_line(capsys):
    EncoderConfig(encoder="embedded").load_encoder("cpu")
    assert "Ignored" not in capsys.readouterr().out
    EncoderConfig(encoder="embedded", clip_model="ViT-L-14", clip_pretrained="x.pt").load_encoder("cpu")
    assert "Ignored with encoder embedded, which is not CLIP: clip-model, clip-pretrained." in capsys.readouterr().out


def test_embeddings_are_unit_vectors(clip_encoder, embedded_encoder, photo):
    for encoder, dim in ((clip_encoder, 384), (embedded_encoder, 1280)):
        embedding = encoder.embed(encoder.preprocess(as_tensor(photo)))
        assert embedding.shape == (1, dim) and embedding.dtype == torch.float32
        assert float(embedding.norm()) == pytest.approx(1, abs=1e-5)


def test_embedded_encoder_tells_the_object_from_noise(embedded_encoder, tiny_scene):
    def embed(image):
        return embedded_encoder.embed(embedded_encoder.preprocess(image))[0]

    def on_white(index):
        image = Image.open(tiny_scene / "train" / f"r_{index}.png")
        return as_tensor(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))

    views = [embed(on_white(index)) for index in (0, 2, 5)]
    noise = embed(torch.rand(1, 3, 100, 100, generator=torch.Generator().manual_seed(0)))
    assert min(float(views[0] @ other) for other in views[1:]) > float(views[0] @ noise) + 0.2


@pytest.mark.parametrize(
    "name, pretrained, words",
    [
        ("ViT-B-99", "openai", "no such model"),
        ("ViT-B-32-quickgelu", "no-such-tag", "neither a file nor a tag"),
        ("ViT-B-32", "openai", "use ViT-B-32-quickgelu"),
        ("ViT-B/32", "openai", "use ViT-B-32-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "neither a file nor a tag"),
    ],
)
def test_wrong_names_say_what_is_right(name, pretrained, words):
    with pytest.raises(UserError, match=words):
        load_open_clip(name, pretrained, "cpu")


def test_a_broken_file_names_the_two_ways_out(tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="Two ways out.*clip-pretrained.*encoder `embedded`"):
        load_open_clip(SMALL_MODEL, str(broken), "cpu")


def test_the_default_is_openais_model_with_quickgelu():
    from dietnerf_ns.semantic.consistency import SemanticConfig

    config = SemanticConfig()
    assert (config.clip_model, config.clip_pretrained) == ("ViT-B-32-quickgelu", "openai")
    assert open_clip.get_model_config(config.clip_model)["quick_gelu"]


@pytest.mark.slow
def test_registering_the_methods_imports_no_encoder():
    code = "import sys, dietnerf_ns.methods; print({'open_clip', 'efficientnet_lite_pytorch'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("set()")


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "MobileCLIP-S1", "EVA02-B-16", "convnext_base"])
def test_a_tower_that_needs_a_newer_timm_says_so(name, random_clip_checkpoint, monkeypatch):
    monkeypatch.setattr("open_clip.timm_model.timm", None)  # as with the timm that nerfstudio asks for
    with pytest.raises(UserError, match=f'clip-model {name}: .*pip install --no-deps "timm>=1.0.17"'):
        load_open_clip(name, str(random_clip_checkpoint[0]), "cpu")


def test_no_memory_is_not_called_a_broken_file(monkeypatch, random_clip_checkpoint):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("dietnerf_ns.semantic.weights._create", too_large)
    with pytest.raises(torch.OutOfMemoryError):
        OpenClipEncoder(SMALL_MODEL, str(random_clip_checkpoint[0]))


def test_a_model_of_the_hub_brings_its_weights_whatever_the_tag(random_clip_checkpoint, monkeypatch, tmp_path):
    """The hub's download is faked: it is a folder with the file and the configuration that the hub would have given."""
    path, model = random_clip_checkpoint
    settings = {"model_cfg": open_clip.get_model_config(SMALL_MODEL), "preprocess_cfg": {}}
    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", lambda *_, **__: str(path))
    monkeypatch.setattr("open_clip.factory._get_hf_config", lambda *_, **__: settings)
    network = load_open_clip("hf-hub:someone/some-model", "openai", "cpu")
    expected = model.visual.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_a_file_that_fits_two_activations_is_pointed_out(tmp_path, capsys):
    torch.manual_seed(0)
    path = tmp_path / "file.pt"
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), path)
    for name, other in (("ViT-B-32", "ViT-B-32-quickgelu"), ("ViT-B-32-quickgelu", "ViT-B-32")):
        load_open_clip(name, str(path), "cpu")
        said = " ".join(capsys.readouterr().out.split())
        assert f"{name} is used; if the weights are those of {other}, its embeddings are wrong" in said


def test_a_folder_named_like_a_tag_is_no_file(tmp_path, monkeypatch):
    (tmp_path / "openai").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="use ViT-B-32-quickgelu"):
        load_open_clip("ViT-B-32", "openai", "cpu")


@pytest.mark.parametrize("name", ["clip_encoder", "embedded_encoder"])
def test_half_precision_keeps_the_embedding_and_the_direction_of_the_gradient(name, photo, request):
    encoder = copy.deepcopy(request.getfixturevalue(name))

    def embedding_and_gradient(*, half):
        image = as_tensor(photo).requires_grad_(True)
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            embedding = encoder.embed(encoder.preprocess(image))
        (gradient,) = torch.autograd.grad((1024 * embedding[0, :4]).sum(), image)
        return embedding.detach(), gradient.flatten()

    exact, gradient = embedding_and_gradient(half=False)
    encoder.keep_in_half_precision()
    rounded, rounded_gradient = embedding_and_gradient(half=True)
    assert all(p.dtype == torch.float16 for p in encoder.network.parameters())
    assert float((exact * rounded).sum()) > 0.999
    assert torch.allclose(embedding_and_gradient(half=False)[0], rounded, atol=1e-2), "also without autocast"
    assert float(torch.nn.functional.cosine_similarity(gradient, rounded_gradient, dim=0)) > 0.9


def test_of_a_wide_image_the_encoders_see_the_central_square(clip_encoder, embedded_encoder, photo):
    wide = as_tensor(photo)
    square = wide[..., :, (wide.shape[-1] - wide.shape[-2]) // 2 :][..., : wide.shape[-2]]
    for encoder in (clip_encoder, embedded_encoder):
        assert encoder.sees_central_square
        whole, part = (encoder.embed(encoder.preprocess(image)) for image in (wide, square))
        assert float((whole * part).sum()) > 0.995
    assert not FakeEncoder().sees_central_square
