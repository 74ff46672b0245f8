import math
import re

import pytest
import torch

from dietnerf_ns.data.dataset import AreaDownscaledDataset
from dietnerf_ns.data.view_selection import keep_views
from dietnerf_ns.geometry.cameras import nearest_point_to_axes
from dietnerf_ns.semantic.consistency import SemanticConfig, SemanticConsistency
from dietnerf_ns.semantic.encoders import EmbeddedEncoder, EncoderConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.encoders import FakeEncoder
from tests.helpers.models import tiny_model
from tests.helpers.scenes import blender_outputs


@pytest.fixture
def photos(tiny_scene):
    return AreaDownscaledDataset(keep_views(blender_outputs(tiny_scene), [0, 2, 5]), scale_factor=0.5)


@pytest.fixture
def fake_encoder(monkeypatch):
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: FakeEncoder())


def semantic_loss(photos, total_steps=100, seed=0, blend=lambda image: image, **settings):
    config = SemanticConfig(**({"resolution": 16} | settings))
    run = {"rays_per_batch": 200, "total_steps": total_steps, "seed": seed}
    return SemanticConsistency(config, photos, blend=blend, device="cpu", **run)


def due_steps(semantic, total=100):
    return [step for step in range(total) if semantic.is_due(step)]


def test_no_view_is_due_while_the_loss_is_paused(photos, fake_encoder):
    semantic = semantic_loss(photos, every=10)
    assert due_steps(semantic) == [0, 10, 20, 30, 40, 50, 60, 70]
    semantic.paused = True
    assert due_steps(semantic) == [] and not semantic.is_active(10)


def test_a_changed_interval_counts_from_the_first_step(photos, fake_encoder):
    semantic = semantic_loss(photos, every=10, start=5)
    semantic.reconfigure(weight=0.5, every=30)
    assert due_steps(semantic) == [5, 35, 65] and semantic.config.weight == 0.5


@pytest.mark.parametrize(
    "setting",
    [
        {"every": 0},
        {"weight": -0.1},
        {"crop": 0.0},
        {"crop": 1.5},
        {"sample_fraction": 0.0},
        {"resolution": 2},
        {"rays_per_chunk": 0},
        {"theta_range": (10.0, 0.0)},
        {"phi_range": (0.0, 91.0)},
        {"radius_range": (0.0, 1.0)},
    ],
)
def test_impossible_settings_are_refused(setting):
    name, value = next(iter(setting.items()))
    with pytest.raises(UserError, match=re.escape(f"{name.replace('_', '-')} {value}: must be")):
        SemanticConfig(**setting).check()


def test_same_seed_and_step_give_the_same_view_whatever_came_before(photos, fake_encoder):
    model = tiny_model()
    first, second = semantic_loss(photos), semantic_loss(photos)
    first.loss(model, 10), first.loss(model, 20)
    second.loss(model, 20)
    assert torch.equal(first.last.view.camera_to_world, second.last.view.camera_to_world)
    assert torch.equal(first.last.renders, second.last.renders)
    other_seed = semantic_loss(photos, seed=1)
    other_seed.loss(model, 20)
    assert not torch.equal(other_seed.last.view.camera_to_world, second.last.view.camera_to_world)


def test_loss_is_lambda_per_render_times_one_minus_similarity(photos, fake_encoder):
    model = tiny_model()
    semantic = semantic_loss(photos, weight=0.25)
    loss = semantic.loss(model, 0)
    encoder = FakeEncoder()
    with torch.no_grad():
        embedding = encoder.embed(encoder.preprocess(semantic.last.renders))[0]
    similarity = float(embedding @ semantic.targets[semantic.last.view.target_index])
    assert float(semantic.last.similarity) == pytest.approx(similarity, abs=1e-6)
    assert float(loss) == pytest.approx(0.25 * (1 - similarity), abs=1e-6)


def test_targets_are_the_photos_on_their_background(photos, fake_encoder):
    semantic = semantic_loss(photos)
    on_white = photos.get_image_float32(1).mean(dim=(0, 1)) - 0.5
    assert torch.allclose(semantic.targets[1], torch.nn.functional.normalize(on_white, dim=0), atol=1e-6)


def test_photos_with_alpha_are_blended_as_the_model_blends_them(tiny_scene, fake_encoder):
    outputs = keep_views(blender_outputs(tiny_scene), [0])
    outputs.alpha_color = None
    photos = AreaDownscaledDataset(outputs)
    assert photos.get_image_float32(0).shape[-1] == 4
    semantic = semantic_loss(photos, blend=tiny_model(background_color="black").blend_background)
    image = photos.get_image_float32(0)
    on_black = (image[..., :3] * image[..., 3:]).mean(dim=(0, 1)) - 0.5
    assert torch.allclose(semantic.targets[0], torch.nn.functional.normalize(on_black, dim=0), atol=1e-6)


def test_random_targets_use_every_photo_and_nearest_the_closest_one(photos, fake_encoder):
    model = tiny_model()
    semantic = semantic_loss(photos, resolution=8)
    used = set()
    for step in range(20):
        semantic.loss(model, step)
        used.add(semantic.last.view.target_index)
    assert used == {0, 1, 2}
    nearest = semantic_loss(photos, target="nearest", resolution=8)
    for step in range(5):
        nearest.loss(model, step)
        angles = nearest.last.view.camera_to_world[:, 2] @ photos.cameras.camera_to_worlds[:, :, 2].T
        assert nearest.last.view.target_index == int(angles.argmax())


def test_chunks_are_as_large_as_a_training_batch_unless_given(photos, fake_encoder):
    def largest_chunk(**settings):
        model, lengths = tiny_model(), []
        model.register_forward_pre_hook(lambda _module, bundles: lengths.append(len(bundles[0])))
        semantic_loss(photos, resolution=24, **settings).loss(model, 0)
        return max(lengths)

    assert largest_chunk() == 200
    assert largest_chunk(rays_per_chunk=70) == 70


def test_settings_of_the_view_reach_the_render(photos, fake_encoder):
    model = tiny_model()
    semantic = semantic_loss(photos, resolution=20, crop=0.5)
    semantic.loss(model, 0)
    assert semantic.last.renders.shape == (1, 3, 10, 10)
    given = {"theta_range": (10.0, 20.0), "phi_range": (30.0, 40.0), "radius_range": (4.0, 4.2)}
    semantic, center = (
        semantic_loss(photos, poses="sphere", **given),
        nearest_point_to_axes(photos.cameras.camera_to_worlds),
    )
    for step in range(5):
        semantic.loss(model, step)
        offset = semantic.last.view.camera_to_world[:, 3] - center
        assert 4.0 <= float(offset.norm()) <= 4.2
        assert 30 <= math.degrees(math.asin(offset[2] / offset.norm())) <= 40
        assert 10 <= math.degrees(math.atan2(offset[1], offset[0])) <= 20


def test_checkpointing_and_chunks_do_not_change_the_render(photos, fake_encoder):
    model = tiny_model()
    reference = semantic_loss(photos)
    reference.loss(model, 0)
    for setting in ({"checkpoint_render": False}, {"rays_per_chunk": 50}):
        other = semantic_loss(photos, **setting)
        other.loss(model, 0)
        assert torch.allclose(other.last.renders, reference.last.renders, atol=1e-6), setting


def test_optimising_only_the_semantic_loss_of_one_view_raises_its_similarity(photos):
    """With the real embedded encoder and a real model."""
    model = tiny_model(plane_resolution=16, plane_channels=4, num_nerf_samples_per_ray=16)
    semantic = semantic_loss(photos, encoder="embedded", resolution=32, weight=1.0)
    assert isinstance(semantic.encoder, EmbeddedEncoder)
    optimizer = torch.optim.Adam(model.field.parameters(), lr=2e-2)
    losses, similarities = [], []
    for _ in range(30):
        optimizer.zero_grad()
        loss = semantic.loss(model, 0)  # step 0 again and again: the same view and photo
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        similarities.append(semantic.last.similarity)
    assert losses[-1] < 0.72 * losses[0]  # 0.68 reached
    assert similarities[-1] > similarities[0] + 0.2  # 0.23 reached


def test_a_schedule_without_views_is_named(photos, fake_encoder, capsys):
    for settings in ({"start": 0.5, "stop": 0.5}, {"start": 100, "stop": 200}):
        semantic_loss(photos, **settings).say_if_there_are_none(whole_scene_from=0, first_step=0)
        assert "there will be none, because they would start after their `stop`" in capsys.readouterr().out
    semantic = semantic_loss(photos, every=10, stop=0.3)
    semantic.say_if_there_are_none(whole_scene_from=semantic.total_steps // 5, first_step=0)
    assert "there will be none" not in capsys.readouterr().out
    semantic.say_if_there_are_none(whole_scene_from=semantic.total_steps // 3, first_step=0)
    assert "there will be none, because the sampled space grows until step" in capsys.readouterr().out
    semantic_loss(photos)
    assert "will be none" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("gpu_memory.h:459 cuMemCreate(...) failed: CUDA_ERROR_OUT_OF_MEMORY"),  # tinycudann's
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "tinycudann", "cuBLAS"],
)
def test_a_step_that_runs_out_of_memory_is_tried_with_smaller_chunks_from_then_on(photos, fake_encoder, capsys, error):
    semantic, tried = semantic_loss(photos), []
    semantic.rays_per_chunk = 2048
    model, loss = tiny_model(), semantic.loss

    def out_of_memory_above_600(model, step):
        tried.append(semantic.rays_per_chunk)
        if semantic.rays_per_chunk > 600:
            raise error
        return loss(model, step)

    semantic.loss = out_of_memory_above_600
    tensors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    capsys.readouterr()
    value, gradients = semantic.loss_and_gradients(model, 0, tensors)
    semantic.loss_and_gradients(model, 10, tensors)
    assert tried == [2048, 1024, 512, 512]
    assert float(value) > 0 and any(g is not None and g.abs().sum() > 0 for g in gradients)
    (line,) = capsys.readouterr().out.splitlines()
    assert "Out of memory while a semantic view was rendered with 2048 rays at once" in line


def test_another_error_of_a_step_is_not_taken_for_one_of_memory(photos, fake_encoder):
    semantic = semantic_loss(photos)

    def fails(model, step):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    semantic.loss = fails
    with pytest.raises(RuntimeError, match="illegal memory access"):
        semantic.loss_and_gradients(tiny_model(), 0, [])


@pytest.mark.parametrize(
    "settings, words",
    [
        ({}, "even with 256 rays at once. Use a smaller --pipeline.datamanager.train-num-rays-per-batch"),
        ({"checkpoint_render": False}, "Use --pipeline.semantic.checkpoint-render True"),
    ],
)
def test_memory_that_smaller_chunks_do_not_save_is_said(photos, fake_encoder, settings, words):
    semantic = semantic_loss(photos, **settings)
    semantic.rays_per_chunk = 1024

    def out_of_memory(model, step):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    semantic.loss = out_of_memory
    with pytest.raises(UserError, match=words):
        semantic.loss_and_gradients(tiny_model(), 0, [])


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_an_encoder_without_a_direction_is_refused(photos, monkeypatch, value):
    encoder = FakeEncoder()
    encoder.embed = lambda inputs: torch.full((len(inputs), 3), value)
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: encoder)
    with pytest.raises(UserError, match="the encoder gives no direction for 3 of 3 photos, such as r_0.png"):
        semantic_loss(photos)


def test_a_loss_that_is_switched_off_has_no_views_any_more(photos, fake_encoder):
    semantic = semantic_loss(photos)
    semantic.switched_off = "its gradient was not finite"
    assert due_steps(semantic) == [] and not semantic.is_active(10)


def test_of_a_wide_view_only_what_the_encoder_sees_is_rendered(tiny_scene, fake_encoder, monkeypatch):
    photos = AreaDownscaledDataset(keep_views(blender_outputs(tiny_scene), [0, 2, 5]), scale_factor=0.5)
    photos.cameras.width = photos.cameras.width * 2
    photos.cameras.cx = photos.cameras.cx * 2
    wide = semantic_loss(photos, resolution=16).sample_view(3)
    monkeypatch.setattr(FakeEncoder, "sees_central_square", True)
    square = semantic_loss(photos, resolution=16).sample_view(3)
    assert wide.size == (16, 32) and square.size == (16, 16)
    middle = wide.rays.directions.reshape(16, 32, 3)[:, 8:24]
    pixel = (middle[0, 1] - middle[0, 0]).norm()
    assert ((square.rays.directions.reshape(16, 16, 3) - middle).norm(dim=-1) < 1.5 * pixel).all(), "up to the jitter"
    cropped = semantic_loss(photos, resolution=16, crop=0.5).sample_view(3)
    assert cropped.size == (8, 8)
