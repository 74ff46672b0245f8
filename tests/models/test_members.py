"""Several members whose renders are averaged; each is trained as if it were alone."""

import copy
from dataclasses import replace

import pytest
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig

from dietnerf_ns.data.capture import Capture
from dietnerf_ns.models import members
from dietnerf_ns.models.nerfacto import DietNeRFModel
from dietnerf_ns.semantic.rendering import render_view
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.models import BOX, rays_of_a_view, tiny_model

PHOTO = torch.rand(108, 3)
DENSE = {"average_init_density": 20.0}


def alone(model, number):
    """A member as a model of its own, with the same settings and weights."""
    single = replace(model.given_config, members=1).setup(scene_box=BOX, num_train_data=3, metadata={}, device="cpu")
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("other_members")}
    single.load_state_dict(own if number == 0 else model.other_members[number - 1].state_dict())
    return single


def losses_of(model, seed=0):
    rays, _ = rays_of_a_view()
    torch.manual_seed(seed)
    outputs = model(rays)
    return model.get_loss_dict(outputs, {"image": PHOTO}, model.get_metrics_dict(outputs, {"image": PHOTO}))


def image_of(model):
    camera = pinhole_cameras(ring_of_poses(5)[2:3], width=16, height=16, focal=20.0)[0:1]
    return model.eval().get_outputs_for_camera(camera)


def test_the_image_is_the_mean_of_the_members_images():
    model = tiny_model(members=3, **DENSE)
    images = [image_of(alone(model, number)) for number in range(3)]
    for name, mean in image_of(model).items():
        if "depth" in name:  # weighted, see below
            continue
        assert torch.allclose(mean, torch.stack([image[name] for image in images]).mean(dim=0), atol=1e-5), name
    assert not torch.allclose(images[0]["rgb"], images[1]["rgb"]), "they start with other random numbers"


def test_the_depth_of_a_member_that_sees_nothing_does_not_count():
    model = tiny_model(members=2, **DENSE)
    with torch.no_grad():
        model.other_members[0].field.mlp_base[2].layers[-1].bias.fill_(-30)  # empty
    (rays, _), (same, _) = rays_of_a_view(), rays_of_a_view()
    both, seeing = model.eval()(rays), alone(model, 0).eval()(same)
    seen = seeing["accumulation"] > 0.1
    assert seen.any() and float(both["accumulation"].max()) < 0.6
    for name in ("depth", "expected_depth"):
        assert torch.allclose(both[name][seen], seeing[name][seen], atol=1e-3), name


def test_each_member_gets_the_gradient_that_it_has_alone():
    """Adam does not depend on the gradient's scale, so that half of it changes a member as much."""
    model = tiny_model(members=2, plane_smoothness=3.0).train()
    single = alone(model, 0).train()
    sum(losses_of(model).values()).backward()
    sum(losses_of(single).values()).backward()
    for name, parameter in single.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(2 * model.get_parameter(name).grad, parameter.grad, rtol=1e-3, atol=1e-7), name
    others = [p.grad for p in model.other_members.parameters() if p.grad is not None]
    assert len(others) == sum(p.grad is not None for p in single.parameters())


def test_all_members_are_optimised_scheduled_and_counted_once():
    model = tiny_model(members=2)
    groups = model.get_param_groups()
    parameters = [parameter for group in groups.values() for parameter in group]
    trained = {id(p) for p in model.parameters() if p.requires_grad and p.numel() > 0}
    assert {id(p) for p in parameters} == trained and len(parameters) == len(trained)
    assert {id(tensor) for tensor in model.gradient_inputs()} >= trained
    model.begin_attempt(7)
    assert model.other_members[0].first_step == 7


def test_the_semantic_view_is_the_mean_and_reaches_every_member():
    model = tiny_model(members=2, **DENSE).train()
    rays, size = rays_of_a_view()
    view = render_view(model, rays, size, rays_per_chunk=20)
    images = [render_view(alone(model, number), rays_of_a_view()[0], size) for number in range(2)]
    assert torch.allclose(view, (images[0] + images[1]) / 2, atol=1e-5)
    view.square().sum().backward()
    for member in (model, model.other_members[0]):
        assert float(member.field.encoding.levels[0].features.grad.abs().max()) > 0


def test_a_member_that_collapses_is_not_hidden_by_the_other():
    model = tiny_model(members=2, **DENSE).train()
    with torch.no_grad():
        model.other_members[0].field.mlp_base[2].layers[-1].bias.fill_(-30)  # empty
    rays, _ = rays_of_a_view()
    outputs = model(rays)
    assert float(model.mean_opacity(outputs)) < 1e-6 < float(outputs["accumulation"].mean())
    dark = {"image": torch.zeros_like(PHOTO)}
    losses = model.get_loss_dict(outputs, dark, model.get_metrics_dict(outputs, dark))
    assert float(model.photometric_mse(losses)) == pytest.approx(1.0, abs=1e-4), "white instead of black"
    assert float(losses["rgb_loss"].detach()) < 0.9


def test_large_photos_get_two_members_and_checkpoints_keep_their_number(tiny_pipeline_config):
    def pipeline(mode="val", **settings):
        model = replace(tiny_pipeline_config.model, **settings)
        return replace(tiny_pipeline_config, model=model).setup(device="cpu", test_mode=mode)

    assert len(pipeline(members="auto").model.other_members) == 0, "100 pixels"
    trained = pipeline(members=3)
    state = trained.state_dict()
    rendering = pipeline("inference", members="auto")
    rendering.load_pipeline(state, step=0)
    assert len(rendering.model.other_members) == 2
    features = rendering.model.other_members[1].field.encoding.levels[0].features
    assert torch.equal(features, trained.model.other_members[1].field.encoding.levels[0].features)


@pytest.mark.parametrize(("side", "members"), [(199, 1), (200, 2), (1080, 2)])
def test_auto_depends_on_the_photos_size(side, members, monkeypatch):
    capture = Capture(pinhole_cameras(ring_of_poses(2), width=2 * side, height=side))
    monkeypatch.setattr(DietNeRFModel, "capture", capture)
    model = tiny_model(plane_resolution=4, members="auto")
    assert 1 + len(model.other_members) == members


def test_members_are_not_mixed_with_the_camera_optimizer(monkeypatch, capsys):
    """Each would have poses of its own."""
    monkeypatch.setattr(DietNeRFModel, "capture", Capture(pinhole_cameras(ring_of_poses(2), width=400, height=400)))
    moves = CameraOptimizerConfig(mode="SO3xR3")
    assert len(tiny_model(members="auto", camera_optimizer=moves).other_members) == 0
    assert "poses of its own" not in capsys.readouterr().out
    assert len(tiny_model(members=2, camera_optimizer=moves).other_members) == 1
    assert "members 2: each member has camera poses of its own" in capsys.readouterr().out


def test_a_member_that_explains_the_photos_badly_is_left_out_of_images_and_of_semantic_views():
    model = tiny_model(members=3, **DENSE).train()
    model.other_members[0].renderer_rgb.background_color = torch.tensor([9.0, 9.0, 9.0])  # its renders are far off
    with torch.no_grad():
        for parameter in model.other_members[0].field.parameters():
            parameter.mul_(3)
    for seed in range(3):
        losses_of(model, seed)
    assert model._counted() == [True, False, True]
    images = [image_of(alone(model, number))["rgb"] for number in (0, 2)]
    assert torch.allclose(image_of(model)["rgb"], (images[0] + images[1]) / 2, atol=1e-5)
    restored = tiny_model(members=3, **DENSE)
    restored.load_state_dict(model.state_dict())
    restored.begin_attempt(0)  # as when a run is loaded
    assert restored._counted() == [True, False, True]
    model.load_state_dict(tiny_model(members=3, **DENSE).state_dict())  # as when a run restarts
    assert model._counted() == [True, True, True]


def test_errors_are_those_of_all_processes(monkeypatch):
    """Otherwise each process would leave out other members."""
    monkeypatch.setattr(members, "average_scalars", lambda *errors: [3 + 0 * error for error in errors])
    model = tiny_model(members=2, **DENSE).train()
    losses_of(model)
    assert model._errors.tolist() == [3, 3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_excludes_no_member(bad):
    model = tiny_model(members=2, **DENSE).train()
    losses_of(model)
    errors = model._errors.clone()
    with torch.no_grad():
        of_bad_step = model(rays_of_a_view()[0])
    of_bad_step["of_members"][1]["rgb"] += bad
    model.get_loss_dict(of_bad_step, {"image": PHOTO}, model.get_metrics_dict(of_bad_step, {"image": PHOTO}))
    assert torch.equal(model._errors, errors) and model._counted() == [True, True]
    model._errors = torch.tensor([bad, 0.01])  # as earlier versions saved it
    restored = tiny_model(members=2, **DENSE)
    restored.load_state_dict(model.state_dict())
    assert restored._counted() == [True, True]


def test_errors_begin_after_first_steps_that_are_not_finite():
    model = tiny_model(members=2, **DENSE).train()
    with torch.no_grad():
        of_bad_step = model(rays_of_a_view()[0])
    of_bad_step["of_members"][1]["rgb"] += float("nan")
    for _ in range(2):
        outputs = copy.copy(of_bad_step)
        model.get_loss_dict(outputs, {"image": PHOTO}, model.get_metrics_dict(outputs, {"image": PHOTO}))
    losses_of(model)
    assert model._errors.isfinite().all()


def test_members_whose_errors_differ_little_all_count():
    model = tiny_model(members=2, **DENSE)
    model._errors = torch.tensor([0.01, 0.0149])
    assert model._counted() == [True, True]
    model._errors = torch.tensor([0.0151, 0.01])
    assert model._counted() == [False, True]
