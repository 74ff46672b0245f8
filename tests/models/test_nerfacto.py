import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.field_components.spatial_distortions import SceneContraction

from dietnerf_ns.datamanager import ONE_BACKGROUND, TRAIN_CAMERAS
from dietnerf_ns.errors import UserError
from dietnerf_ns.fields.contraction import FrontFacingContraction
from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.fields.planes import MultiResolutionTriplanes
from dietnerf_ns.models import implementation, nerfacto
from dietnerf_ns.models.nerfacto import DietNeRFModelConfig
from tests.conftest import pinhole_cameras, ring_of_poses
from tests.fields.test_contraction import cameras_side_by_side
from tests.semantic.test_rendering import BOX, tiny_model

GREY = torch.full((3,), 0.5)


def unbounded_model(cameras, *, background=None, **settings):
    config = DietNeRFModelConfig(field="free-planes", implementation="torch", log2_hashmap_size=4, **settings)
    metadata = {TRAIN_CAMERAS: cameras, ONE_BACKGROUND: background}
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


def test_front_facing_cameras_get_their_contraction_and_near_plane():
    model = unbounded_model(cameras_side_by_side(spread=1.5))
    assert isinstance(model.field.spatial_distortion, FrontFacingContraction)
    assert all(network.spatial_distortion is model.field.spatial_distortion for network in model.proposal_networks)
    assert model.collider.near_plane == pytest.approx(1.5)
    assert unbounded_model(cameras_side_by_side(), near_plane=0.2).collider.near_plane == 0.2


def test_other_cameras_keep_nerfactos_contraction():
    surrounding = pinhole_cameras(ring_of_poses(5))
    for cameras, background, wanted in (
        (surrounding, None, "auto"),
        (surrounding, GREY, "around"),
        (cameras_side_by_side(), GREY, "around"),
    ):
        model = unbounded_model(cameras, background=background, scene=wanted)
        assert isinstance(model.field.spatial_distortion, SceneContraction)
        assert model.collider.near_plane == pytest.approx(0.05)
        assert model.renderer_rgb.background_color == "last_sample"


def test_one_thing_on_one_background_gets_its_box_planes_and_colour():
    model = unbounded_model(pinhole_cameras(ring_of_poses(5, center=(1.0, 2.0, 3.0))), background=GREY)
    box = model.field.spatial_distortion
    assert isinstance(box, ObjectBox) and torch.allclose(box.center, torch.tensor([1.0, 2.0, 3.0]), atol=1e-4)
    for network in (model.field, *model.proposal_networks):
        assert network.spatial_distortion is box
        assert network.average_init_density == pytest.approx(1.5 / (4 * 20 / 35))
    assert (model.collider.near_plane, model.collider.far_plane) == pytest.approx((4 - 3.232, 4 + 3.232), abs=1e-3)
    assert model.config.proposal_initial_sampler == "uniform" and model.config.distortion_loss_mult == 0
    away = pinhole_cameras(ring_of_poses(5, center=(9.0, 9.0, 9.0))).generate_rays(camera_indices=0, keep_shape=False)
    assert torch.allclose(model.eval()(away)["rgb"], GREY), "where nothing is the photos' background shows"


def test_what_the_user_set_stays_in_the_box_of_one_thing():
    cameras = pinhole_cameras(ring_of_poses(5))
    model = unbounded_model(cameras, background=GREY, near_plane=1.5, background_color="black")
    assert model.collider.near_plane == 1.5 and model.renderer_rgb.background_color == "black"
    without_background = unbounded_model(cameras, scene="object")
    assert isinstance(without_background.field.spatial_distortion, ObjectBox)
    assert without_background.renderer_rgb.background_color == "last_sample"
    bounded = unbounded_model(cameras, background=GREY, disable_scene_contraction=True)
    assert bounded.field.spatial_distortion is None and bounded.collider.far_plane == 1000
    with pytest.raises(UserError, match="scene object"):
        unbounded_model(cameras_side_by_side(), scene="object")


def test_the_finest_planes_have_a_cell_per_pixel():
    model = unbounded_model(cameras_side_by_side())  # 40 x 30 pixels
    assert isinstance(model.field.encoding, MultiResolutionTriplanes)
    assert [level.resolution for level in model.field.encoding.levels] == [7, 15, 30]
    huge = cameras_side_by_side()
    huge.rescale_output_resolution(100)
    assert unbounded_model(huge).field.encoding.levels[-1].resolution == 512


def test_evaluation_keeps_the_near_plane():
    model = tiny_model().eval()
    rays = pinhole_cameras(ring_of_poses(1)).generate_rays(camera_indices=0, keep_shape=False)
    assert float(model.collider(rays).nears.min()) == 2.0


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


def test_the_plane_generator_has_a_parameter_group_of_its_own():
    model = tiny_model(field="generated-planes")
    groups = model.get_param_groups()
    ids = {name: {id(parameter) for parameter in parameters} for name, parameters in groups.items()}
    assert ids["plane_generator"] == {id(parameter) for parameter in model.field.encoding.generator.parameters()}
    assert ids["fields"] and not ids["fields"] & ids["plane_generator"]
    assert ids["fields"] | ids["plane_generator"] == {id(parameter) for parameter in model.field.parameters()}
    assert "plane_generator" not in tiny_model().get_param_groups()
