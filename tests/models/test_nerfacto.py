import copy
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.spatial_distortions import SceneContraction
from nerfstudio.model_components.ray_samplers import UniformLinDispPiecewiseSampler, UniformSampler
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.models import nerfacto as nerfstudio_nerfacto
from nerfstudio.models.nerfacto import NerfactoModelConfig

from dietnerf_ns.data.capture import CAPTURE, Capture
from dietnerf_ns.fields.contraction import FrontFacingContraction
from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox
from dietnerf_ns.fields.planes import MultiResolutionTriplanes
from dietnerf_ns.fields.surroundings import CubeContraction, GrowingSphereCollider, ReachSampler
from dietnerf_ns.geometry.visual_hull import VisualHull
from dietnerf_ns.models import base, implementation, nerfacto
from dietnerf_ns.models.nerfacto import DEFAULTS, DietNeRFModelConfig
from dietnerf_ns.models.trainable import trainable_with_semantic_loss
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import arc_of_poses, cameras_side_by_side, pinhole_cameras, ring_of_poses
from tests.helpers.models import BOX, rays_of_a_view, tiny_model

GREY = torch.full((3,), 0.5)


def unbounded_model(cameras, *, background=None, hull=None, is_transparent=False, **settings):
    config = DietNeRFModelConfig(field="free-planes", implementation="torch", log2_hashmap_size=4, **settings)
    capture = Capture(cameras, background, hull, photos_opened=True, is_transparent=is_transparent)
    metadata = {CAPTURE: capture}
    return config.setup(scene_box=BOX, num_train_data=3, metadata=metadata, device="cpu")


def test_blender_data_gets_its_settings_and_other_data_does_not():
    fitted = DietNeRFModelConfig().fitted_to(BlenderDataParserConfig())
    assert (fitted.near_plane, fitted.far_plane, fitted.background_color) == (2.0, 6.0, "white")
    assert fitted.disable_scene_contraction and fitted.proposal_initial_sampler == "uniform"
    assert fitted.distortion_loss_mult == 0 and not fitted.use_appearance_embedding
    assert fitted.camera_optimizer.mode == "off"
    other = DietNeRFModelConfig()
    assert other.fitted_to(NerfstudioDataParserConfig()) is other


def test_the_blender_preset_keeps_what_the_user_changed():
    fitted = DietNeRFModelConfig(near_plane=1.5, background_color="black").fitted_to(BlenderDataParserConfig())
    assert (fitted.near_plane, fitted.background_color, fitted.far_plane) == (1.5, "black", 6.0)


def test_a_value_that_is_nerfactos_default_is_kept_when_it_is_given():
    given = {"near_plane": 0.05, "far_plane": 1000.0, "background_color": "last_sample", "distortion_loss_mult": 0.002}
    given |= {"disable_scene_contraction": False, "proposal_initial_sampler": "piecewise", "average_init_density": 0.01}
    fitted = DietNeRFModelConfig(**given).fitted_to(BlenderDataParserConfig())
    assert given == {name: getattr(fitted, name) for name in given}
    cameras = pinhole_cameras(ring_of_poses(5))
    object_model = unbounded_model(cameras, background=GREY, is_transparent=True, **given)
    assert given == {name: getattr(object_model.config, name) for name in given}
    assert object_model.renderer_rgb.background_color == "last_sample"


def test_what_is_neither_given_nor_found_in_the_data_is_as_in_nerfacto():
    config = unbounded_model(cameras_side_by_side(), scene="inside-out").config
    for name in set(DEFAULTS) - {"average_init_density"}:
        assert getattr(config, name) == getattr(NerfactoModelConfig(), name), name
    assert config.average_init_density == 0.01


def test_a_configuration_of_version_0_1_gets_what_the_data_needs():
    """It was saved with nerfacto's defaults where nothing was given."""
    state = vars(DietNeRFModelConfig()) | DEFAULTS | {"proposal_plane_resolution": 32, "far_plane": 7.0}
    old = DietNeRFModelConfig.__new__(DietNeRFModelConfig)
    old.__setstate__(state)
    fitted = old.fitted_to(BlenderDataParserConfig())
    assert (fitted.near_plane, fitted.background_color, fitted.far_plane) == (2.0, "white", 7.0)
    old.near_plane = 0.05
    assert copy.deepcopy(old).near_plane == 0.05, "given now"


def test_front_facing_cameras_get_their_contraction_and_near_plane():
    model = unbounded_model(cameras_side_by_side(spread=1.5))
    assert isinstance(model.field.spatial_distortion, FrontFacingContraction)
    assert all(network.spatial_distortion is model.field.spatial_distortion for network in model.proposal_networks)
    assert model.collider.near_plane == pytest.approx(1.5)
    assert unbounded_model(cameras_side_by_side(), near_plane=0.2).collider.near_plane == 0.2


def outwards(poses):
    """The same cameras, turned around."""
    turned = poses.clone()
    turned[:, :, [0, 2]] *= -1
    return turned


CAPTURES = {
    "around": ring_of_poses(8),
    "half around": arc_of_poses(range(0, 121, 20)),
    "a quarter around": arc_of_poses(range(0, 71, 10)),
    "front-facing": arc_of_poses(range(0, 51, 10)),
    "a room": outwards(ring_of_poses(8, radius=0.5)),
    "a corner of a room": outwards(arc_of_poses(range(0, 121, 20), radius=0.5)),
}


@pytest.mark.parametrize(
    ("capture", "background", "kind"),
    [
        ("around", None, "around"),
        ("around", GREY, "object"),
        ("half around", None, "around"),
        ("half around", GREY, "object"),
        ("a quarter around", None, "around"),
        ("front-facing", None, "front-facing"),
        ("front-facing", GREY, "front-facing"),
        ("a room", None, "inside-out"),
        ("a room", GREY, "inside-out"),
        ("a corner of a room", None, "inside-out"),
    ],
)
def test_the_kind_of_scene_follows_from_the_cameras_and_the_background(capture, background, kind, capsys):
    spaces = {
        "around": CubeContraction,
        "object": ObjectBox,
        "front-facing": FrontFacingContraction,
        "inside-out": SceneContraction,
    }
    model = unbounded_model(pinhole_cameras(CAPTURES[capture]), background=background)
    assert type(model.field.spatial_distortion) is spaces[kind]
    assert f"Scene: {kind}" in capsys.readouterr().out


def test_cameras_that_look_at_no_common_place_keep_nerfactos_space():
    for cameras, scene in ((CAPTURES["a room"], "auto"), (CAPTURES["around"], "inside-out")):
        model = unbounded_model(pinhole_cameras(cameras), background=GREY, scene=scene)
        assert model.collider.near_plane == pytest.approx(0.05) and type(model.collider) is NearFarCollider
        assert model.renderer_rgb.background_color == "last_sample"
        assert model.config.average_init_density == 0.01 and model.config.distortion_loss_mult == 0.002


def test_an_object_with_surroundings_has_a_contraction_around_it():
    model = unbounded_model(pinhole_cameras(ring_of_poses(5, center=(1.0, 2.0, 3.0))))
    space, half_size = model.field.spatial_distortion, 4 * 20 / 35
    assert torch.allclose(space.center, torch.tensor([1.0, 2.0, 3.0]), atol=1e-4)
    assert float(space.half_size) == pytest.approx(half_size), "what the photos show at the centre's distance"
    for network in (model.field, *model.proposal_networks):
        assert network.spatial_distortion is space
        assert network.average_init_density == pytest.approx(1.5 / half_size)
    assert isinstance(model.collider, GrowingSphereCollider) and model.collider.space is space
    assert model.config.distortion_loss_mult == 0 and model.renderer_rgb.background_color == "last_sample"
    sampler = model.proposal_sampler.initial_sampler
    assert isinstance(sampler, ReachSampler)
    assert sampler.spacing_fn_inv(torch.tensor(0.5)) == pytest.approx(4 + half_size), "half to the cube's far side"


def test_what_the_user_set_stays_in_an_object_with_surroundings():
    given = {"near_plane": 0.3, "background_color": "black", "proposal_initial_sampler": "uniform"}
    given |= {"distortion_loss_mult": 0.01, "average_init_density": 0.5}
    model = unbounded_model(pinhole_cameras(ring_of_poses(5)), **given)
    assert given == {name: getattr(model.config, name) for name in given}
    assert model.collider.near_plane == 0.3 and isinstance(model.proposal_sampler.initial_sampler, UniformSampler)
    piecewise = unbounded_model(pinhole_cameras(ring_of_poses(5)), proposal_initial_sampler="piecewise")
    assert isinstance(piecewise.proposal_sampler.initial_sampler, UniformLinDispPiecewiseSampler)


def radius_schedule(model, total_steps=100):
    """The radius of the sampled space in training, as a function of the step."""
    run = SimpleNamespace(_start_step=0, config=SimpleNamespace(max_num_iterations=total_steps))
    callbacks = model.get_training_callbacks(TrainingCallbackAttributes(None, None, None, run))

    def radius_at(step):
        for callback in callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        return float(model.collider.radius)

    return radius_at


def test_the_sampled_space_grows_over_a_part_of_the_run_and_again_after_a_restart(capsys):
    model = unbounded_model(pinhole_cameras(ring_of_poses(5)), space_annealing=0.5)
    radius_at = radius_schedule(model)
    assert "Space: grows until step 50; semantic views wait" in capsys.readouterr().out
    first, *radii = (radius_at(step) for step in (0, 25, 49, 50, 99))
    assert first < 1 < radii[0] < radii[1] < radii[2] == radii[3] == float("inf")
    assert model.whole_scene_from(100) == 50
    model.begin_attempt(60)
    assert radius_at(60) == first
    whole_from = model.whole_scene_from(100)
    assert radius_at(whole_from - 1) < float("inf") == radius_at(whole_from)
    whole = unbounded_model(pinhole_cameras(ring_of_poses(5)), space_annealing=0.0)
    whole.collider.grow(0.5)  # as in the checkpoint of a run that was stopped half-way
    whole.field.level_mask.weights.zero_()
    whole.config.coarse_to_fine = 0.0
    assert radius_schedule(whole)(0) == float("inf") and (whole.field.level_mask.weights == 1).all()


def test_cameras_that_look_at_no_common_place_cannot_be_around_an_object():
    with pytest.raises(UserError, match="scene around: needs pinhole cameras that look at one object"):
        unbounded_model(cameras_side_by_side(), scene="around")


def test_an_object_on_a_uniform_background_gets_its_box_planes_and_colour():
    model = unbounded_model(pinhole_cameras(ring_of_poses(5, center=(1.0, 2.0, 3.0))), background=GREY)
    box = model.field.spatial_distortion
    assert isinstance(box, ObjectBox) and torch.allclose(box.center, torch.tensor([1.0, 2.0, 3.0]), atol=1e-4)
    for network in (model.field, *model.proposal_networks):
        assert network.spatial_distortion is box
        assert network.average_init_density == pytest.approx(1.5 / (4 * 20 / 35))
    assert isinstance(model.collider, BoxCollider) and model.collider.box is box
    assert model.config.proposal_initial_sampler == "uniform" and model.config.distortion_loss_mult == 0
    aside = pinhole_cameras(ring_of_poses(5, center=(3.0, 2.0, 4.0)))
    rays = model.collider(aside.generate_rays(camera_indices=0, keep_shape=False))
    misses = (rays.fars - rays.nears)[:, 0] < 1e-3
    rgb = model.eval()(rays)["rgb"]
    assert misses.any() and not misses.all()
    assert torch.allclose(rgb[misses], GREY), "the photos' background shows where there is nothing"
    assert not torch.allclose(rgb[~misses], GREY)


def test_what_the_user_set_stays_in_the_box_of_an_object(capsys):
    cameras = pinhole_cameras(ring_of_poses(5))
    given = {"near_plane": 1.5, "background_color": "black"}
    model = unbounded_model(cameras, background=GREY, is_transparent=True, **given)
    assert "Background" not in capsys.readouterr().out, "the photos' is not used"
    assert model.collider.near_plane == 1.5 and model.renderer_rgb.background_color == "black"
    without_background = unbounded_model(cameras, scene="object")
    assert isinstance(without_background.field.spatial_distortion, ObjectBox)
    assert without_background.renderer_rgb.background_color == "last_sample"
    bounded = unbounded_model(cameras, background=GREY, disable_scene_contraction=True)
    assert bounded.field.spatial_distortion.half_sizes.tolist() == pytest.approx([4 * 20 / 35] * 3), "what they see"
    assert torch.equal(bounded.renderer_rgb.background_color, GREY), "the photos' colour, which is not given"
    with pytest.raises(UserError, match="scene object"):
        unbounded_model(cameras_side_by_side(), scene="object")


@pytest.mark.parametrize("bounded", [True, False])
def test_the_box_shrinks_to_the_silhouettes_in_the_photos(bounded, capsys):
    hull = VisualHull(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([-0.4]), ["photo.png"])
    cameras = pinhole_cameras(ring_of_poses(5), focal=55.0)  # which see a cube of about the dataparser's box
    settings = {"background": GREY, "disable_scene_contraction": bounded}
    whole = unbounded_model(cameras, **settings).field.spatial_distortion
    shrunk = unbounded_model(cameras, hull=hull, **settings).field.spatial_distortion
    bottom = shrunk.center[2] - shrunk.half_sizes[2]
    assert float(bottom) == pytest.approx(-0.4 - 0.02 * float(whole.half_sizes[2]), abs=1e-4)
    assert torch.allclose(shrunk.half_sizes[:2], whole.half_sizes[:2], rtol=1e-4)
    capsys.readouterr()
    unfitted = unbounded_model(cameras, hull=hull, fit_box=False, **settings)
    if bounded:
        assert unfitted.field.spatial_distortion is None and not isinstance(unfitted.collider, BoxCollider)
    else:
        assert torch.equal(unfitted.field.spatial_distortion.half_sizes, whole.half_sizes)
    moving = unbounded_model(cameras, hull=hull, camera_optimizer=CameraOptimizerConfig(mode="SO3xR3"), **settings)
    assert torch.equal(moving.field.spatial_distortion.half_sizes, whole.half_sizes), "poses are still to be corrected"
    nowhere = VisualHull(hull.normals, torch.tensor([50.0]), hull.photos)
    kept = unbounded_model(cameras, hull=nowhere, **settings).field.spatial_distortion
    assert torch.allclose(kept.half_sizes, whole.half_sizes, rtol=1e-4)
    assert "Are the camera poses right?" in " ".join(capsys.readouterr().out.split())


def test_the_finest_planes_have_a_grid_point_per_pixel():
    model = unbounded_model(cameras_side_by_side())  # 40 x 30 pixels
    assert isinstance(model.field.encoding, MultiResolutionTriplanes)
    assert [len(planes[0]) for planes in model.field.encoding.planes()] == [7, 15, 30]
    huge = cameras_side_by_side()
    huge.rescale_output_resolution(100)
    assert len(unbounded_model(huge).field.encoding.planes()[-1][0]) == 512
    assert len(unbounded_model(huge, plane_resolution=64).field.encoding.planes()[-1][0]) == 64


@pytest.mark.parametrize("scale", [0.5, 0.0])
def test_features_start_where_the_settings_say(scale):
    model = tiny_model(plane_initial_scale=scale, plane_resolution=64)
    planes = [*model.field.encoding.levels, *model.proposal_networks[0].mlp_base[0].levels]
    assert [float(level.features.detach().std()) for level in planes] == pytest.approx([scale] * 2, rel=0.1)


def test_normals_need_a_hash_grid():
    with pytest.raises(UserError, match=r"--pipeline.model.predict-normals True: needs --pipeline.model.field hash"):
        tiny_model(predict_normals=True)


def test_evaluation_keeps_the_near_plane():
    """A box that is not fitted is large, and what is in front of the plane was never sampled."""
    rays = pinhole_cameras(ring_of_poses(1)).generate_rays(camera_indices=0, keep_shape=False)
    bounded = tiny_model(near_plane=3.0).eval()
    assert float(bounded.collider(rays).nears.min()) == 3.0
    rays.nears = rays.fars = None
    unbounded = unbounded_model(pinhole_cameras(ring_of_poses(5)), near_plane=3.0).eval()
    assert float(unbounded.collider(rays).nears.min()) == 3.0


def test_plane_smoothness_is_a_weighted_loss():
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        model = tiny_model(plane_smoothness=weight).train()
        rays = pinhole_cameras(ring_of_poses(1)).generate_rays(camera_indices=0, keep_shape=False)[:16]
        outputs = model(rays)
        batch = {"image": torch.rand(16, 3)}
        losses[weight] = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
    assert "plane_smoothness_loss" not in losses[0.0]
    assert float(losses[0.5]["plane_smoothness_loss"]) > 0
    assert torch.isclose(losses[1.0]["plane_smoothness_loss"], 2 * losses[0.5]["plane_smoothness_loss"])


def test_tinycudann_is_used_only_where_it_can_run(monkeypatch, capsys):
    assert implementation.usable_implementation("torch", "cuda") == "torch"
    assert capsys.readouterr().out == ""
    assert implementation.usable_implementation("tcnn", "cpu") == "torch"
    assert "no CUDA GPU" in capsys.readouterr().out
    monkeypatch.setattr(implementation, "TCNN_EXISTS", True)
    assert implementation.usable_implementation("tcnn", "cuda:0") == "tcnn"
    monkeypatch.setattr(implementation, "TCNN_EXISTS", False)
    assert implementation.usable_implementation("tcnn", "cuda:0") == "torch"
    assert "not installed" in " ".join(capsys.readouterr().out.split())


class FakeTcnnModule(torch.nn.Module):
    """Like tinycudann's modules: parameters from the native module, by a seed that nerfstudio never sets."""

    class native_tcnn_module:
        @staticmethod
        def initial_params(seed):
            return torch.rand(5, generator=torch.Generator().manual_seed(seed))

    def __init__(self):
        super().__init__()
        self.params = torch.nn.Parameter(self.native_tcnn_module.initial_params(1337))


def test_tinycudanns_modules_follow_the_seed_of_the_run():
    def drawn(seed):
        model = torch.nn.ModuleList([FakeTcnnModule(), FakeTcnnModule()])
        parameter = model[0].params
        torch.manual_seed(seed)
        implementation.draw_tcnn_parameters(model)
        assert model[0].params is parameter, "an optimiser keeps hold of it"
        return model[0].params.tolist(), model[1].params.tolist()

    assert drawn(0) == drawn(0) and drawn(0) != drawn(1)
    assert drawn(0)[0] != drawn(0)[1]


def test_a_model_draws_its_tinycudann_parameters_when_it_is_complete(monkeypatch):
    drawn = []
    monkeypatch.setattr(nerfacto, "draw_tcnn_parameters", lambda model: drawn.append((model, model.field)))
    model = tiny_model()
    assert drawn == [(model, model.field)]


def test_the_models_of_other_methods_draw_their_tinycudann_parameters_too(monkeypatch):
    drawn = []
    monkeypatch.setattr(base, "draw_tcnn_parameters", lambda model: drawn.append((model, model.field)))
    config = trainable_with_semantic_loss(NerfactoModelConfig(implementation="torch", log2_hashmap_size=4))
    model = config.setup(scene_box=BOX, num_train_data=3, metadata={}, device="cpu")
    assert drawn == [(model, model.field)]


def test_the_plane_generator_has_a_parameter_group_of_its_own():
    model = tiny_model(field="generated-planes")
    groups = model.get_param_groups()
    ids = {name: {id(parameter) for parameter in parameters} for name, parameters in groups.items()}
    assert ids["plane_generator"] == {id(parameter) for parameter in model.field.encoding.generator.parameters()}
    assert ids["fields"] and not ids["fields"] & ids["plane_generator"]
    assert ids["fields"] | ids["plane_generator"] == {id(parameter) for parameter in model.field.parameters()}
    assert "plane_generator" not in tiny_model().get_param_groups()


@pytest.mark.parametrize("field", ["free-planes", "generated-planes", "hash"])
def test_camera_poses_are_corrected_by_the_photos(field):
    model = tiny_model(field=field, camera_optimizer=CameraOptimizerConfig(mode="SO3xR3"), log2_hashmap_size=4)
    cameras = pinhole_cameras(ring_of_poses(3))
    pixels = torch.tensor([[15.5, 20.5], [12.5, 18.5]])
    rays = cameras.generate_rays(camera_indices=torch.zeros(2, 1, dtype=torch.long), coords=pixels)
    model.train()(rays)["rgb"].square().sum().backward()
    gradient = model.camera_optimizer.pose_adjustment.grad
    assert (gradient[0] != 0).all() and (gradient[1:] == 0).all()


@pytest.mark.parametrize(
    "setting",
    [
        {"plane_resolution": 1},
        {"plane_levels": 0},
        {"plane_channels": 0},
        {"plane_initial_scale": -0.1},
        {"plane_smoothness": -1.0},
        {"coarse_to_fine": -0.1},
        {"num_proposal_iterations": 0},
        {"num_nerf_samples_per_ray": 0},
        {"proposal_weights_anneal_max_num_iters": 0},
        {"eval_num_rays_per_chunk": 0},
        {"near_plane": -1.0},
        {"max_res": 8, "field": "hash"},
        {"plane_resolution": 100_000},
    ],
)
def test_impossible_settings_are_refused(setting):
    name, value = next(iter(setting.items()))
    with pytest.raises(UserError, match=f"--pipeline.model.{name.replace('_', '-')} {value}: must be at least"):
        tiny_model(**setting)


@pytest.mark.parametrize("setting", [{"near_plane": 7.0}, {"far_plane": 1.0}])
def test_a_far_plane_in_front_of_the_near_one_is_refused(setting):
    with pytest.raises(UserError, match="--pipeline.model.far-plane .*: must be behind the near plane, "):
        tiny_model(**setting)


def test_an_initial_density_of_nothing_is_refused():
    with pytest.raises(UserError, match="average-init-density 0.0: must be above 0"):
        tiny_model(average_init_density=0.0)


def test_a_kind_of_scene_that_the_contraction_settles_is_ignored_with_a_line(capsys):
    tiny_model(scene="object", disable_scene_contraction=True)
    assert "Ignored" not in capsys.readouterr().out
    tiny_model(scene="around", disable_scene_contraction=True)
    assert "Ignored with --pipeline.model.disable-scene-contraction True, which" in capsys.readouterr().out


def test_settings_of_another_field_are_ignored_with_a_line(capsys):
    tiny_model(max_res=100, num_levels=2)
    line = "Ignored with --pipeline.model.field free-planes: --pipeline.model.num-levels, --pipeline.model.max-res."
    assert line in capsys.readouterr().out
    nets = DietNeRFModelConfig().proposal_net_args_list[:1]
    tiny_model(proposal_net_args_list=nets)
    assert "free-planes: --pipeline.model.proposal-net-args-list." in capsys.readouterr().out
    tiny_model(field="hash", log2_hashmap_size=4)
    assert "Ignored with --pipeline.model.field hash: --pipeline.model.plane-resolution" in capsys.readouterr().out
    tiny_model(max_res=8), tiny_model(field="hash", plane_channels=0, log2_hashmap_size=4)
    assert capsys.readouterr().out.count("Ignored with") == 2, "and are not refused"
    DietNeRFModelConfig(field="hash", log2_hashmap_size=4, implementation="torch").setup(
        scene_box=BOX, num_train_data=3, metadata={}, device="cpu"
    )
    assert "Ignored" not in capsys.readouterr().out


@pytest.mark.parametrize("field", ["free-planes", "hash"])
def test_both_proposal_iterations_may_share_a_network(field):
    two = {"num_proposal_iterations": 2, "num_proposal_samples_per_ray": (8, 4), "log2_hashmap_size": 4}
    model = tiny_model(field=field, use_same_proposal_network=True, **two)
    assert len(model.proposal_networks) == 1 and len(model.density_fns) == 2
    rays, _ = rays_of_a_view()
    assert model.train()(rays)["rgb"].isfinite().all()


def test_planes_that_nobody_gave_follow_the_unit_of_length(capsys):
    def planes(scale, **settings):
        poses = ring_of_poses(8, radius=3.0 * scale)
        config = unbounded_model(pinhole_cameras(poses), **settings).config
        return config.near_plane, config.far_plane

    assert planes(1) == planes(0.1) == (0.05, 1000.0)
    assert planes(1000) == planes(1000, background=GREY, is_transparent=True) == pytest.approx((150.0, 3e6))
    assert planes(0.01) == pytest.approx((0.0015, 30.0))
    said = "Near plane 0.0015 and far plane 30, from the distance of the cameras: the scene has another unit"
    assert said in capsys.readouterr().out
    assert planes(1000, near_plane=1.0, far_plane=1e4) == (1.0, 1e4)
    assert planes(1000, disable_scene_contraction=True, background=GREY) == pytest.approx((150.0, 3e6))
    capsys.readouterr()
    bounded = planes(1, disable_scene_contraction=True, background=GREY)
    assert bounded == (0.05, 1000.0) and "from the distance" not in capsys.readouterr().out
    side_by_side = unbounded_model(cameras_side_by_side(spread=1500.0)).config
    assert (side_by_side.near_plane, side_by_side.far_plane) == pytest.approx((1500.0, 1.5e6))


def test_a_run_keeps_the_planes_it_was_trained_with_unless_others_are_given():
    def planes_with(state, **settings):
        model = unbounded_model(pinhole_cameras(ring_of_poses(8, radius=300.0)), **settings)
        model.set_extra_state(model.get_extra_state() | state)
        return model.collider.near_plane, model.collider.far_plane

    assert planes_with({}) == pytest.approx((15.0, 3e5))
    assert planes_with({"planes": (0.05, 1000.0)}) == (0.05, 1000.0)
    assert planes_with({"planes": (0.05, 1000.0)}, near_plane=1.0) == pytest.approx((1.0, 3e5))


def test_what_a_resumed_run_saves_is_what_it_trained_with():
    first, second = (unbounded_model(pinhole_cameras(ring_of_poses(8, radius=radius))) for radius in (1.0, 300.0))
    first.field.average_init_density = first.proposal_networks[0].average_init_density = 0.25
    saved = first.get_extra_state()
    second.set_extra_state(saved)
    again = second.get_extra_state()
    assert (again["planes"], again["average_init_density"]) == (saved["planes"], 0.25) == ((0.05, 1000.0), 0.25)
    assert second.proposal_networks[0].average_init_density == 0.25, "whatever photos it is resumed on"


def test_each_proposal_iteration_needs_its_number_of_samples():
    with pytest.raises(UserError, match=r"num-proposal-samples-per-ray \(0,\): must be one number for each of"):
        tiny_model(num_proposal_samples_per_ray=(0,))
    with pytest.raises(UserError, match=r"num-proposal-samples-per-ray \(8,\): must be one number for each of"):
        tiny_model(num_proposal_iterations=2)


def test_a_checkpoint_tells_which_networks_it_is_of():
    assert implementation.implementation_of(tiny_model().state_dict()) == "torch"
    assert implementation.implementation_of(["field.mlp_head.tcnn_encoding.params", "field.embedding"]) == "tcnn"


def test_the_background_goes_to_the_device_with_the_model_and_into_no_checkpoint():
    model = tiny_model()
    model._set_background(GREY)
    assert not any("background" in name for name in model.state_dict())
    assert model.to("meta").renderer_rgb.background_color.device.type == "meta"


@pytest.mark.parametrize(("weight", "times"), [(0.0, 0), (0.1, 1)])
def test_a_distortion_loss_that_does_not_count_is_not_computed(weight, times, monkeypatch):
    calls, real = [], nerfstudio_nerfacto.distortion_loss
    monkeypatch.setattr(nerfstudio_nerfacto, "distortion_loss", lambda *given: calls.append(None) or real(*given))
    model = tiny_model(distortion_loss_mult=weight).train()
    rays, size = rays_of_a_view()
    outputs, batch = model(rays), {"image": torch.rand(size[0] * size[1], 3)}
    losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
    assert len(calls) == times and (float(losses["distortion_loss"]) > 0) == (times > 0)


def test_the_level_mask_is_left_alone_once_all_levels_are_enabled():
    model = tiny_model(plane_levels=3)
    weights = model.field.level_mask.weights
    versions = []
    for step in range(7):
        model._enable_levels(0.4, 10, step)
        versions.append(weights._version)
    assert weights.tolist() == [1, 1, 1]
    assert len(set(versions)) == 5 and versions[4] == versions[6]
    model.begin_attempt(6)
    model._enable_levels(0.4, 10, 7)
    assert weights.tolist() != [1, 1, 1]
    model._enable_levels(0.4, 10, 9)
    assert weights.tolist() == [1, 1, 1], "a late attempt has a shorter schedule, which ends with the run"


def photometric_loss(model, photo, *, is_background, render, accumulation):
    """Of 81 pixels that are all alike."""
    rays, _ = rays_of_a_view()
    outputs = model(rays)
    outputs |= {"rgb": render.expand(81, 3), "accumulation": torch.full((81, 1), accumulation)}
    batch = {"image": photo.expand(81, -1), "is_background": torch.full((81, 1), is_background)}
    return float(model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))["rgb_loss"])


@pytest.mark.parametrize("photo", [GREY, torch.tensor([0.9, 0.1, 0.3, 0.0])], ids=["opaque", "transparent"])
def test_fog_of_the_backgrounds_colour_is_told_from_empty_space(photo):
    cameras = pinhole_cameras(ring_of_poses(5))
    model = unbounded_model(cameras, background=GREY, is_transparent=len(photo) == 4).train()
    nothing, fog = {"render": model.background, "accumulation": 0.0}, {"render": model.background, "accumulation": 1.0}
    assert photometric_loss(model, photo, is_background=True, **nothing) == pytest.approx(0, abs=1e-10)
    assert photometric_loss(model, photo, is_background=True, **fog) > 0.05
    assert photometric_loss(model, photo, is_background=False, **fog) == 0
    assert photometric_loss(model.eval(), photo, is_background=True, **fog) == 0


@pytest.mark.parametrize("members", [1, 2])
def test_the_error_of_training_rays_is_that_in_front_of_the_photos_background(members):
    """Which collapses are told by: the photos' variance knows no random background."""
    cameras = pinhole_cameras(ring_of_poses(5))
    model = unbounded_model(cameras, background=GREY, members=members).train()
    rays, _ = rays_of_a_view()
    photo, outputs = torch.rand(len(rays), 3), model(rays)
    batch = {"image": photo, "is_background": torch.ones(len(rays), 1, dtype=torch.bool)}
    losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
    renders = [outputs["rgb"]] if members == 1 else [one["rgb"] for one in outputs["of_members"]]
    errors = [float((render - photo).square().mean()) for render in renders]
    assert float(model.photometric_mse(losses)) == pytest.approx(max(errors))
    assert float(losses["rgb_loss"]) != pytest.approx(max(errors))


@pytest.mark.parametrize(
    "settings",
    [{"random_background": False}, {"scene": "around", "background_color": "white"}, {"scene": "around"}],
    ids=["switched off", "photos on another colour", "no colour"],
)
def test_the_background_varies_only_where_it_is_that_of_the_photos(settings):
    model = unbounded_model(pinhole_cameras(ring_of_poses(5)), background=GREY, **settings).train()
    assert not model.needs_background_rays
    assert photometric_loss(model, GREY, is_background=True, render=GREY, accumulation=1.0) == 0
