"""Rays that hit nothing get no samples, and images and losses are the same without them."""

import pytest
import torch
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation

from dietnerf_ns.fields.density_grid import DensityGrid
from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox
from dietnerf_ns.semantic.rendering import render_view
from dietnerf_ns.training.optimizers import FusedAdamConfig
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.models import rays_of_a_view, sample_every_ray, tiny_model


def model_of(density, *, parts=("proposal_networks", "field"), **settings):
    """A model that sees this density, given positions [..., 3], in a large empty box."""
    model = tiny_model(num_proposal_samples_per_ray=(64,), num_nerf_samples_per_ray=24, **settings)
    for part, network in (("proposal_networks", model.proposal_networks[0]), ("field", model.field)):
        real_density, seen = network.get_density, density if part in parts else torch.zeros_like

        def new_density(samples, real_density=real_density, seen=seen):
            of_network, features = real_density(samples)
            return seen(samples.frustums.get_positions())[..., :1] + 0 * of_network, features

        network.get_density = new_density
    return model


def model_of_a_ball(**settings):
    """A model whose proposal and field see a dense ball."""
    return model_of(lambda positions: 30.0 * (positions.norm(dim=-1, keepdim=True) < 0.5), **settings)


def image_of(model, width=64):
    camera = pinhole_cameras(ring_of_poses(5)[2:3], width=width, height=width, focal=width * 1.2)[0:1]
    return model.eval().get_outputs_for_camera(camera)


def count_rays(model):
    counts = []
    real_outputs = model.get_outputs
    model.get_outputs = lambda rays: counts.append(len(rays)) or real_outputs(rays)
    return counts


def test_an_image_is_that_of_many_samples_on_every_ray_with_few_on_some(monkeypatch):
    model = model_of_a_ball()
    counts = count_rays(model)
    skipping, sampled = image_of(model), sum(counts)
    sample_every_ray(monkeypatch)
    monkeypatch.setattr(
        type(model.field), "colors_visible_only", property(lambda self: False, lambda self, value: None)
    )
    model.config.image_sample_factor = 10.0
    everything = image_of(model)
    assert skipping.keys() == everything.keys()
    assert 0.02 < float((everything["accumulation"] > 0.5).float().mean()) < 0.3
    assert sampled < 0.4 * 64 * 64
    inside, outside = everything["accumulation"] > 0.99, everything["accumulation"] == 0
    for name in ("rgb", "accumulation"):
        assert skipping[name].shape == everything[name].shape
        difference = (skipping[name] - everything[name]).abs().amax(dim=-1, keepdim=True)
        assert difference[outside].max() == 0 and difference[inside].max() < 0.03 and difference.max() < 0.1
    assert torch.allclose(skipping["depth"][inside], everything["depth"][inside], atol=0.06)


def test_samples_in_empty_space_are_not_computed_and_the_image_is_the_same(monkeypatch):
    model = model_of_a_ball()
    counts = []
    model.field.mlp_base.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    images, queries = [], []
    for skipped in (True, False):
        if not skipped:
            monkeypatch.setattr(DensityGrid, "may_be_seen_at", lambda _, places: torch.ones_like(places[..., 0]) > 0)
        image_of(model)  # the first one computes the grid
        counts.clear()
        images.append(image_of(model))
        queries.append(sum(counts))
    assert 0 < queries[0] < 0.8 * queries[1]
    for name in ("rgb", "accumulation"):
        assert torch.allclose(images[0][name], images[1][name], atol=1e-4)


def test_images_show_thin_parts_that_the_proposal_network_overlooks(monkeypatch):
    model = model_of(lambda p: 300.0 * (p[..., :2].norm(dim=-1, keepdim=True) < 0.03), parts=["field"])
    image = image_of(model, width=128)["accumulation"]
    sample_every_ray(monkeypatch)
    by_proposals = image_of(model, width=128)["accumulation"]
    model.config.image_sample_factor = 10.0
    rod = image_of(model, width=128)["accumulation"] > 0.95
    assert rod.sum() > 100
    assert image[rod].mean() > 0.9 and image[~rod].mean() < 0.01
    assert by_proposals[rod].mean() < 0.6, "the rod is thin enough"


def test_a_semantic_view_is_the_same_without_the_rays_that_hit_nothing(monkeypatch):
    model = model_of_a_ball().train()
    rays, size = rays_of_a_view(24)
    images, gradients = [], []
    for every_ray in (False, True):
        if every_ray:
            sample_every_ray(monkeypatch)
        image = render_view(model, rays, size, recompute=False)
        model.zero_grad()
        (image * torch.linspace(0, 1, image.numel()).reshape(image.shape)).sum().backward()
        images.append(image.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.field.parameters() if p.grad is not None]))
    assert float((images[0] - images[1]).abs().max()) < 1 / 255 and images[0].std() > 0.01
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 0.01


def test_a_view_past_everything_shows_the_background():
    model = model_of_a_ball().train()
    rays, size = rays_of_a_view()
    rays.directions = -rays.directions
    image = render_view(model, rays, size)
    assert torch.allclose(image, torch.ones_like(image), atol=1e-6)


def test_what_shows_the_background_is_behind_the_scene_and_transparent():
    """As the viewer's composition by depth, `ns-export tsdf` and `ns-export pointcloud` take it."""
    model = model_of_a_ball().eval()
    outputs = image_of(model)
    empty, full = outputs["accumulation"] < 0.5, outputs["accumulation"] > 0.99
    furthest = float(outputs["depth"][full].max())
    for name in ("depth", "expected_depth", "prop_depth_0"):
        assert float(outputs[name][empty].min()) > furthest + 1
        assert float(outputs[name].max()) < 5 * furthest
    rgba = model.get_rgba_image(outputs)
    assert torch.equal(rgba[..., 3:], outputs["accumulation"]) and empty.any() and full.any()
    assert torch.allclose(rgba[..., :3][full[..., 0]], outputs["rgb"][full[..., 0]], atol=0.02)
    on_white = rgba[..., 3:] * rgba[..., :3] + 1 - rgba[..., 3:]
    assert float((on_white - outputs["rgb"]).abs().max()) < 0.01


def test_a_render_on_its_last_sample_is_opaque_as_in_nerfstudio():
    model = tiny_model(background_color="last_sample").eval()
    assert model.get_rgba_image(image_of(model))[..., 3].unique().tolist() == [1.0]


def test_rays_that_miss_the_box_are_background_in_training_and_count_in_the_loss():
    model = tiny_model(average_init_density=30.0).train()
    rays, _ = rays_of_a_view(16)
    counts = count_rays(model)
    outputs = model(rays)
    hit = BoxCollider.hit_by(model.collider(rays_of_a_view(16)[0]))
    assert 0 < counts[0] == int(hit.sum()) < len(rays)
    assert outputs["rgb"].shape == (len(rays), 3) and torch.equal(
        outputs["rgb"][~hit], torch.ones(int((~hit).sum()), 3)
    )
    assert outputs["accumulation"][~hit].abs().max() == 0 < outputs["accumulation"][hit].max()
    photo = torch.rand(len(rays), 3)
    losses = model.get_loss_dict(outputs, {"image": photo}, model.get_metrics_dict(outputs, {"image": photo}))
    assert float(losses["rgb_loss"].detach()) == pytest.approx(float((outputs["rgb"] - photo).square().mean().detach()))


@pytest.mark.parametrize("settings", [{"background_color": "last_sample"}, {"fit_box": False}])
def test_every_ray_is_sampled_where_what_it_misses_has_no_known_colour(settings):
    model = tiny_model(**settings)
    rays, _ = rays_of_a_view()
    assert model.may_hit(rays) is None
    counts = count_rays(model)
    model(rays)
    assert counts == [len(rays)]


def test_a_crop_of_the_viewer_limits_the_rays_itself():
    model = model_of_a_ball().eval()
    camera = pinhole_cameras(ring_of_poses(5)[2:3], width=32, height=32, focal=40.0)[0:1]
    beside = OrientedBox.from_params((1.2, 0.0, 0.0), (0.0, 0.0, 0.0), (0.2, 0.2, 0.2))
    assert model.get_outputs_for_camera(camera, obb_box=beside)["accumulation"].max() < 0.01
    around = OrientedBox.from_params((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.2, 1.2, 1.2))
    assert model.get_outputs_for_camera(camera, obb_box=around)["accumulation"].max() > 0.9


def test_the_grids_are_computed_anew_when_the_density_has_changed():
    model = tiny_model(average_init_density=30.0)
    rays, _ = rays_of_a_view()
    assert model.may_hit(rays).sum() > 1 and image_of(model)["accumulation"].max() > 0.9
    with torch.no_grad():
        for network in (model.proposal_networks[0].mlp_base[1], model.field.mlp_base[2]):
            for parameter in network.parameters():
                parameter.fill_(0)
            network.layers[-1].bias.fill_(-30)
    assert model.may_hit(rays).sum() == 1, "one at least, because nerfstudio cannot render nothing"
    assert image_of(model)["accumulation"].max() == 0


@pytest.mark.parametrize("members", [1, 2])
def test_the_grids_end_with_a_training_step(members):
    """Fused Adam changes parameters without a trace in their version counters."""
    model = tiny_model(average_init_density=30.0, members=members)
    callbacks = model.get_training_callbacks(TrainingCallbackAttributes(None, None, None, None))
    rays, _ = rays_of_a_view()
    assert model.may_hit(rays).sum() > 1 and image_of(model)["accumulation"].max() > 0.9
    networks = [network for one in (model, *model.other_members) for network in (one.proposal_networks[0], one.field)]
    biases = [network.mlp_base[-1].layers[-1].bias for network in networks]
    for bias in biases:
        bias.grad = torch.ones_like(bias)
    FusedAdamConfig(lr=40.0).setup(params=biases).step()
    for callback in callbacks:
        callback.run_callback_at_location(0, location=TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
    assert model.may_hit(rays).sum() == 1 and image_of(model)["accumulation"].max() == 0


def test_an_image_does_not_change_when_proposal_networks_are_trained():
    model = model_of_a_ball()
    model.proposal_sampler._steps_since_update = 6
    image_of(model)
    assert model.proposal_sampler._steps_since_update == 6


def test_grid_points_are_exact_in_mixed_precision():
    turned = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    box, seen = ObjectBox(turned, torch.tensor([0.3, 0.1, 0.2]), torch.tensor([0.9, 1.1, 1.3])), []

    def density(points):
        seen.append(points)
        return torch.ones(len(points), 1)

    grids = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.float16, enabled=enabled):
            grids.append(DensityGrid(box, density, side=16))
    assert torch.equal(seen[0], seen[1])
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(grids[0]._unit(seen[0]), grids[1]._unit(seen[0]))


def samples_per_ray(model, width=8):
    """Of the proposal network, or the grid in its place, and of the field, in an image of width x width pixels."""
    counts = []
    real_outputs = model.proposal_sampler.generate_ray_samples

    def counted(rays, density_fns):
        samples, weights, proposals = real_outputs(rays, density_fns)
        counts.append((proposals[0].shape[-1], samples.shape[-1]))
        return samples, weights, proposals

    model.proposal_sampler.generate_ray_samples = counted
    image_of(model, width=width)
    model.proposal_sampler.generate_ray_samples = real_outputs
    return counts[0]


def test_samples_in_images_are_fewer_where_the_grid_places_them():
    assert samples_per_ray(model_of_a_ball()) == (64, 18)
    assert samples_per_ray(model_of_a_ball(image_sample_factor=2.0)) == (64, 48)
    assert samples_per_ray(model_of_a_ball(background_color="last_sample")) == (64, 24)
    assert samples_per_ray(model_of_a_ball(background_color="last_sample", image_sample_factor=0.5)) == (32, 12)


def test_images_have_more_samples_than_training_rays(monkeypatch):
    sample_every_ray(monkeypatch)
    model = tiny_model(image_sample_factor=2.0)
    queries = []
    model.field.mlp_base.register_forward_pre_hook(lambda _, inputs: queries.append(len(inputs[0])))
    image_of(model, width=8)
    rays, _ = rays_of_a_view()
    model.train()(rays)
    assert queries == [8 * 8 * 16, len(rays) * 8]


def test_an_image_of_chunks_at_the_same_time_is_that_of_one_after_the_other():
    model, before = model_of_a_ball(), torch.get_num_threads()
    model.config.eval_num_rays_per_chunk = 100
    images = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            images.append(image_of(model))
    finally:
        torch.set_num_threads(before)
    one, several = images
    assert one.keys() == several.keys()
    assert float((one["accumulation"] > 0.5).sum()) > 200
    for name, output in one.items():
        assert not several[name].requires_grad
        assert torch.allclose(several[name], output, atol=1e-5), name
