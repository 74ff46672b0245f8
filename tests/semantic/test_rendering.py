from functools import partial

import pytest
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.data.scene_box import SceneBox

from dietnerf_ns.models.nerfacto import DietNeRFModelConfig
from dietnerf_ns.semantic.rendering import render_view, seen_as_in_the_viewer, view_camera, view_rays
from tests.conftest import FakeEncoder, pinhole_cameras, ring_of_poses

PLANES = "field.mlp_base.0.levels.0.plane_coef"
BOX = SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))


def tiny_model(seed=0, **settings):
    """A small model of the real class; float64 so that gradients can be compared to many digits."""
    torch.manual_seed(seed)
    small = {
        "field": "free-planes",
        "plane_resolution": 8,
        "plane_levels": 1,
        "plane_channels": 2,
        "proposal_plane_resolution": 8,
        "hidden_dim": 16,
        "hidden_dim_color": 16,
        "num_proposal_iterations": 1,
        "num_proposal_samples_per_ray": (8,),
        "num_nerf_samples_per_ray": 8,
        "near_plane": 2.0,
        "far_plane": 6.0,
        "background_color": "white",
        "disable_scene_contraction": True,
        "proposal_initial_sampler": "uniform",
        "implementation": "torch",
    }
    config = DietNeRFModelConfig(**(small | settings))
    return config.setup(scene_box=BOX, num_train_data=3, metadata={}, device="cpu")


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rays_of_a_view(resolution=9):
    reference = pinhole_cameras(ring_of_poses(1))[0:1]
    camera = view_camera(reference, ring_of_poses(5)[2], resolution)
    return view_rays(camera, torch.Generator().manual_seed(1))


def render_gradients(model, **how):
    rays, size = rays_of_a_view()
    model.zero_grad()
    image = render_view(model, rays, size, rays_per_chunk=20, **how)
    encoder = FakeEncoder()
    target = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.2]), dim=0)
    loss = 1 - (encoder.embed(encoder.preprocess(image)) @ target.to(image)).sum()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradient_through_recomputed_chunks_is_the_plain_gradient(double_precision, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the image stays in float64
    model = tiny_model().double().train()
    loss, recomputed = render_gradients(model, recompute=True)
    same_loss, plain = render_gradients(model, recompute=False)
    assert float(loss) == float(same_loss)
    assert recomputed.keys() == plain.keys() and any("plane" in name for name in plain)
    for name, gradient in plain.items():
        assert torch.allclose(recomputed[name], gradient, rtol=1e-6, atol=1e-12), name
    assert plain[PLANES].abs().max() > 0


def test_gradient_matches_finite_differences(double_precision, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    model = tiny_model().double().train()
    _, gradients = render_gradients(model, recompute=True)
    planes, gradient = dict(model.named_parameters())[PLANES], gradients[PLANES]
    step = 1e-5
    for index in gradient.abs().flatten().topk(4).indices:
        place = torch.unravel_index(index, planes.shape)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                planes[place] += sign * step
            losses.append(render_gradients(model, recompute=True)[0])
            with torch.no_grad():
                planes[place] -= sign * step
        assert float((losses[0] - losses[1]) / (2 * step)) == pytest.approx(float(gradient[place]), rel=1e-4)


def test_equals_what_the_viewer_shows():
    model = tiny_model().eval()
    camera = view_camera(pinhole_cameras(ring_of_poses(1))[0:1], ring_of_poses(5)[3], 12)
    viewer_image = model.get_outputs_for_camera(camera)["rgb"].permute(2, 0, 1)
    rays = camera.generate_rays(camera_indices=0, keep_shape=False)
    size = (int(camera.height[0]), int(camera.width[0]))
    with torch.no_grad():
        assert torch.allclose(render_view(model.train(), rays, size, rays_per_chunk=7)[0], viewer_image, atol=1e-6)


def test_memory_kept_for_the_backward_pass_does_not_grow_with_the_view():
    model = tiny_model(num_nerf_samples_per_ray=16)

    def kept_numbers(resolution, recompute):
        kept = {}

        def note(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
            return tensor

        rays, size = rays_of_a_view(resolution)
        rays.nears, rays.fars = torch.full_like(rays.pixel_area, 2.0), torch.full_like(rays.pixel_area, 6.0)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            render_view(model, rays, size, rays_per_chunk=64, recompute=recompute)
        return sum(kept.values()) / (size[0] * size[1])

    rays_and_colours = 30  # numbers per ray that stay whatever is recomputed; a sample keeps far more
    assert kept_numbers(24, recompute=True) < rays_and_colours and kept_numbers(48, recompute=True) < rays_and_colours
    assert kept_numbers(24, recompute=False) > 1000


def test_own_mixed_precision_changes_the_render_a_little():
    model = tiny_model()
    rays, size = rays_of_a_view()
    full = render_view(model, rays, size)
    half = render_view(model, rays, size, mixed_precision=True)
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 3e-2


def test_a_random_view_leaves_training_state_alone():
    model = tiny_model(camera_optimizer=CameraOptimizerConfig(mode="SO3xR3")).train()
    torch.nn.init.normal_(model.camera_optimizer.pose_adjustment, std=0.1)
    model.proposal_sampler._step, model.proposal_sampler._steps_since_update = 3, 7
    rays, size = rays_of_a_view()
    origins = rays.origins.clone()
    for recompute in (True, False):
        render_view(model, rays, size, recompute=recompute).sum().backward()
    assert model.training and model.field.training
    assert model.proposal_sampler._steps_since_update == 7
    assert model.camera_optimizer.pose_adjustment.grad is None
    assert torch.equal(rays.origins, origins), "no training camera's pose correction is applied"


def test_a_random_view_has_the_average_appearance():
    model = tiny_model(use_appearance_embedding=True).train()
    table = model.field.embedding_appearance.embedding.weight
    rays, size = rays_of_a_view()
    render = partial(render_view, model, rays, size)
    image = render().detach()
    with torch.no_grad():
        table[:] = table.flip(0)
    assert torch.allclose(render(), image, atol=1e-6), "which camera owns which appearance does not matter"
    with torch.no_grad():
        table += 5.0
    assert not torch.allclose(render(), image, atol=1e-3), "but their mean does"


def test_training_mode_comes_back_after_an_error():
    model = tiny_model().train()
    with pytest.raises(RuntimeError), seen_as_in_the_viewer(model):
        raise RuntimeError
    assert model.training


def test_view_camera_keeps_the_field_of_view_and_the_aspect_ratio():
    reference = pinhole_cameras(ring_of_poses(1), width=504, height=378, focal=400.0)[0:1]
    camera = view_camera(reference, ring_of_poses(3)[1], 84)
    assert (int(camera.width[0]), int(camera.height[0])) == (112, 84)
    assert float(camera.fx[0] / camera.width[0]) == pytest.approx(400 / 504)
    assert float(camera.cy[0]) == pytest.approx(42)
    assert torch.equal(camera.camera_to_worlds[0], ring_of_poses(3)[1])


def test_rays_are_jittered_inside_their_own_pixels():
    camera = view_camera(pinhole_cameras(ring_of_poses(1))[0:1], torch.eye(4)[:3], 20)
    rays, (height, width) = view_rays(camera, torch.Generator().manual_seed(0))
    on_image_plane = rays.directions / -rays.directions[:, 2:]
    x = (on_image_plane[:, 0] * camera.fx[0] + camera.cx[0]).reshape(height, width) - torch.arange(width)
    y = (camera.cy[0] - on_image_plane[:, 1] * camera.fy[0]).reshape(height, width) - torch.arange(height)[:, None]
    for offsets in (x, y):
        assert offsets.min() >= -1e-4 and offsets.max() <= 1 + 1e-4
        assert offsets.mean() == pytest.approx(0.5, abs=0.05) and offsets.std() == pytest.approx(0.29, abs=0.03)
    other, _ = view_rays(camera, torch.Generator().manual_seed(1))
    assert not torch.equal(other.directions, rays.directions)


def test_crop_renders_a_window_of_the_view():
    camera = view_camera(pinhole_cameras(ring_of_poses(1))[0:1], torch.eye(4)[:3], 20)
    tops = set()
    for seed in range(20):
        rays, size = view_rays(camera, torch.Generator().manual_seed(seed), crop=0.5)
        assert size == (10, 14) and len(rays) == 140
        on_image_plane = rays.directions / -rays.directions[:, 2:]
        tops.add(int((camera.cy[0] - on_image_plane[0, 1] * camera.fy[0]).floor()))
    assert len(tops) > 3 and min(tops) >= 0 and max(tops) <= 10
