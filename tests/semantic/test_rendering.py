from dataclasses import replace
from functools import partial

import pytest
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.model_components.scene_colliders import NearFarCollider

from dietnerf_ns.methods import dietnerf_vanilla
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.models.nerfacto import DietNeRFMember
from dietnerf_ns.semantic.rendering import evaluation_mode, render_view, view_camera, view_rays, window_of
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.encoders import FakeEncoder
from tests.helpers.models import KeepsActivationsByItself, Storages, rays_of_a_view, sample_every_ray, tiny_model

PLANES = "field.mlp_base.0.levels.0.features"


def render_gradients(model, **how):
    rays, size = rays_of_a_view()
    model.zero_grad()
    image = render_view(model, rays, size, rays_per_chunk=20, **how)
    encoder = FakeEncoder()
    target = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.2]), dim=0)
    loss = 1 - (encoder.embed(encoder.preprocess(image)) @ target.to(image)).sum()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


SHOWN_BY_TRANSPARENT_RAYS = {"background_color": "last_sample", "average_init_density": 1e-6}


@pytest.mark.parametrize(
    "settings", [{}, {"members": 2}, {"num_proposal_iterations": 2}, SHOWN_BY_TRANSPARENT_RAYS], ids=str
)
def test_gradient_through_recomputed_chunks_is_the_plain_gradient(settings, double_precision, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the image stays in float64
    proposals = {"num_proposal_samples_per_ray": (8,) * settings.get("num_proposal_iterations", 1)}
    model = tiny_model(**proposals, **settings).double().train()
    loss, recomputed = render_gradients(model, recompute=True)
    same_loss, plain = render_gradients(model, recompute=False)
    assert float(loss) == pytest.approx(float(same_loss), rel=1e-12)
    assert recomputed.keys() == plain.keys() and PLANES in plain
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


def test_equals_what_the_viewer_shows_with_the_samples_of_the_proposal_network(monkeypatch):
    sample_every_ray(monkeypatch)
    model = tiny_model().eval()
    camera = view_camera(pinhole_cameras(ring_of_poses(1))[0:1], ring_of_poses(5)[3], 12)
    viewer_image = model.get_outputs_for_camera(camera)["rgb"].permute(2, 0, 1)
    rays = camera.generate_rays(camera_indices=0, keep_shape=False)
    size = (int(camera.height[0]), int(camera.width[0]))
    with torch.no_grad():
        assert torch.allclose(render_view(model.train(), rays, size, rays_per_chunk=7)[0], viewer_image, atol=1e-6)


@pytest.mark.parametrize("native", [False, True])
def test_memory_kept_for_the_backward_pass_does_not_grow_with_the_view(native):
    model = tiny_model(num_nerf_samples_per_ray=16)
    if native:
        model.field.mlp_base.append(KeepsActivationsByItself())

    def kept(resolution, recompute):
        rays, size = rays_of_a_view(resolution)
        rays.nears, rays.fars = torch.full_like(rays.pixel_area, 2.0), torch.full_like(rays.pixel_area, 6.0)
        with Storages() as storages:
            image = render_view(model, rays, size, rays_per_chunk=64, recompute=recompute)
        assert image.requires_grad
        return storages.numbers_alive(), size[0] * size[1]

    def kept_per_ray(recompute):
        (few, fewer_rays), (many, more_rays) = kept(24, recompute), kept(48, recompute)
        return (many - few) / (more_rays - fewer_rays)

    rays_and_colours = 40  # numbers per ray that stay whatever is recomputed; a sample keeps far more
    assert kept_per_ray(recompute=True) < rays_and_colours
    assert kept_per_ray(recompute=False) > 1000


def test_only_rays_that_see_something_are_rendered_again(monkeypatch):
    sample_every_ray(monkeypatch)
    model = tiny_model(average_init_density=20.0).train()
    real_density = model.field.get_density

    def nothing_on_one_side(samples):
        density, features = real_density(samples)
        side = samples.frustums.get_positions()[..., :1]
        return density * torch.where(side > 0, 1.0, 1e-7), features

    monkeypatch.setattr(model.field, "get_density", nothing_on_one_side)
    rays, size = rays_of_a_view(24)
    counted = []
    model.register_forward_pre_hook(lambda _module, bundles: counted.append(len(bundles[0])))
    render = partial(render_view, model, rays, size, rays_per_chunk=100)
    image = render()
    forward, weights = sum(counted), torch.linspace(0, 1, image.numel()).reshape(image.shape)
    (image * weights).sum().backward()
    again = sum(counted) - forward
    assert forward == len(rays) and 0 < again < 0.8 * len(rays)
    skipping = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (render(recompute=False) * weights).sum().backward()
    for name, gradient in skipping.items():
        exact = model.get_parameter(name).grad
        assert (gradient - exact).norm() <= 1e-2 * exact.norm(), name


def test_gradients_of_faint_rays_count_where_the_slope_of_the_density_is_larger_than_the_density(monkeypatch):
    """As with TensoRF's ReLU; models that do not say otherwise have no limit."""
    monkeypatch.setattr(DietNeRFMember, "faint", SemanticModel.faint)
    sample_every_ray(monkeypatch)
    model = tiny_model(average_init_density=20.0).train()
    real_density = model.field.get_density

    def faint(samples):
        density, features = real_density(samples)
        return density - density.detach() + 1e-5, features

    monkeypatch.setattr(model.field, "get_density", faint)
    _, recomputed = render_gradients(model, recompute=True)
    _, exact = render_gradients(model, recompute=False)
    assert recomputed.keys() == exact.keys() and any(gradient.norm() > 0.1 for gradient in exact.values())
    for name, gradient in exact.items():
        assert torch.allclose(recomputed[name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max())), name


def test_a_fraction_of_the_samples_is_taken_and_training_keeps_its_own(monkeypatch):
    monkeypatch.setattr(DietNeRFMember, "faint", -1.0)
    sample_every_ray(monkeypatch)
    model = tiny_model(num_proposal_samples_per_ray=(12,), num_nerf_samples_per_ray=8).train()
    rays, size = rays_of_a_view()
    queries = {"field": [], "proposal": []}
    model.field.mlp_base.register_forward_pre_hook(lambda _, inputs: queries["field"].append(len(inputs[0])))
    model.proposal_networks[0].mlp_base.register_forward_pre_hook(
        lambda _, inputs: queries["proposal"].append(len(inputs[0]))
    )
    render = partial(render_view, model, rays, size, rays_per_chunk=len(rays) // 2)
    full = render().detach()
    assert {name: sum(of_chunks) for name, of_chunks in queries.items()} == {
        "field": len(rays) * 8,
        "proposal": len(rays) * 12,
    }
    queries["field"].clear(), queries["proposal"].clear()
    quarter = render(sample_fraction=0.25)
    assert (sum(queries["field"]), sum(queries["proposal"])) == (len(rays) * 2, len(rays) * 3)
    quarter.sum().backward()
    assert sum(queries["field"]) == 2 * len(rays) * 2, "the same samples for the gradient"
    assert torch.equal(render(), full)


def test_gradients_are_the_same_in_the_trainers_mixed_precision():
    model = tiny_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        _, recomputed = render_gradients(model, recompute=True)
    with torch.autocast("cpu", torch.bfloat16):
        _, plain = render_gradients(model, recompute=False)
    assert recomputed.keys() == plain.keys()
    for name, gradient in plain.items():
        assert torch.allclose(recomputed[name], gradient, rtol=0.05, atol=0.02 * float(gradient.abs().max())), name


def test_the_gradient_of_generated_planes_passes_through_their_generator_once():
    model = tiny_model(field="generated-planes", plane_resolution=32).train()
    rays, size = rays_of_a_view()
    passes = []
    next(model.field.encoding.generator.parameters()).register_hook(lambda _: passes.append(None))
    render_view(model, rays, size, rays_per_chunk=20).sum().backward()
    assert len(passes) == 1
    recomputed = [p.grad.clone() for p in model.field.encoding.generator.parameters()]
    model.zero_grad()
    model.field.encoding.end_step()
    render_view(model, rays, size, rays_per_chunk=20, recompute=False).sum().backward()
    for gradient, parameter in zip(recomputed, model.field.encoding.generator.parameters(), strict=True):
        assert gradient.abs().sum() > 0
        assert torch.allclose(gradient, parameter.grad, rtol=1e-3, atol=1e-6)


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


@pytest.mark.parametrize("step", [3, 5000], ids=["among the first steps", "when an update is due"])
def test_proposal_networks_place_the_samples_of_a_view_without_activations(step):
    model, has_grad = tiny_model().train(), []
    model.proposal_sampler._step, model.proposal_sampler._steps_since_update = step, 7
    (density,) = model.density_fns
    model.density_fns = [lambda positions: has_grad.append(torch.is_grad_enabled()) or density(positions)]
    rays, size = rays_of_a_view()
    sampling = model.proposal_sampler.update_sched
    render_view(model, rays, size, recompute=False).sum().backward()
    assert has_grad == [False]
    assert (model.proposal_sampler._step, model.proposal_sampler.update_sched) == (step, sampling)


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


def test_the_near_plane_holds_in_a_semantic_view_of_any_method():
    """nerfstudio evaluates from 0, where photometric rays have no samples."""
    model, (rays, _) = tiny_model().train(), rays_of_a_view()
    model.collider = NearFarCollider(near_plane=2.0, far_plane=6.0)
    with evaluation_mode(model):
        assert model.collider(replace(rays)).nears.unique().tolist() == [2.0]
    assert model.eval().collider(replace(rays)).nears.unique().tolist() == [0.0], "as nerfstudio has it"


def test_a_semantic_view_shows_what_is_in_front_of_the_photos_near_plane():
    model = tiny_model(near_plane=5.0, far_plane=5.5, average_init_density=30.0).train()
    model.collider.planes_cut_images = False
    rays, size = rays_of_a_view()
    hit = model.may_hit(replace(rays)).sum()
    image = render_view(model, rays, size)
    shown = (image[0] - 1).abs().amax(dim=0) > 0.01
    assert shown.sum() > 2 * hit, "the planes are for the distances of the photos"


def test_training_mode_comes_back_after_an_error():
    model = tiny_model().train()
    with pytest.raises(RuntimeError), evaluation_mode(model):
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
    height, width = int(camera.height[0]), int(camera.width[0])
    rays = view_rays(camera, torch.Generator().manual_seed(0))
    on_image_plane = rays.directions / -rays.directions[:, 2:]
    x = (on_image_plane[:, 0] * camera.fx[0] + camera.cx[0]).reshape(height, width) - torch.arange(width)
    y = (camera.cy[0] - on_image_plane[:, 1] * camera.fy[0]).reshape(height, width) - torch.arange(height)[:, None]
    for offsets in (x, y):
        assert offsets.min() >= -1e-4 and offsets.max() <= 1 + 1e-4
        assert offsets.mean() == pytest.approx(0.5, abs=0.05) and offsets.std() == pytest.approx(0.29, abs=0.03)
    other = view_rays(camera, torch.Generator().manual_seed(1))
    assert not torch.equal(other.directions, rays.directions)


def test_crop_renders_a_window_of_the_view():
    camera = view_camera(pinhole_cameras(ring_of_poses(1))[0:1], torch.eye(4)[:3], 20)
    tops = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        window = window_of(camera, generator, crop=0.5)
        assert (int(window.height[0]), int(window.width[0])) == (10, 14)
        rays = view_rays(window, generator)
        assert len(rays) == 140
        on_image_plane = rays.directions / -rays.directions[:, 2:]
        tops.add(int((camera.cy[0] - on_image_plane[0, 1] * camera.fy[0]).floor()))
    assert len(tops) > 3 and min(tops) >= 0 and max(tops) <= 10


def test_a_view_that_sees_nothing_has_no_gradient(monkeypatch):
    sample_every_ray(monkeypatch)
    model = tiny_model(average_init_density=1e-30).train()
    rays, size = rays_of_a_view()
    image = render_view(model, rays, size, rays_per_chunk=20)
    assert torch.equal(image, torch.ones_like(image)), "the background"
    image.sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_vanillas_views_are_as_many_rays_as_in_the_papers_code():
    settings = dietnerf_vanilla.config.pipeline.semantic
    photo = pinhole_cameras(ring_of_poses(1), width=400, height=400, focal=555.0)[0:1]
    camera = view_camera(photo, ring_of_poses(5)[2], settings.resolution)
    window = window_of(camera, torch.Generator(), crop=settings.crop)
    assert (int(window.height[0]), int(window.width[0])) == (168, 168)
