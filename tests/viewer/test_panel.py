"""The panel in nerfstudio's real viewer: first with browsers that only have a camera, then in Chromium."""

import contextlib
import math
import re
import threading
import time
from dataclasses import replace

import pytest
import torch
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.viewer.viewer import Viewer

from dietnerf_ns.geometry.sphere import spherical_coordinates
from dietnerf_ns.semantic.consistency import SemanticConfig, SemanticConsistency
from dietnerf_ns.semantic.encoders import EncoderConfig
from dietnerf_ns.semantic.loss import semantic_consistency_loss
from dietnerf_ns.viewer import semantic as semantic_folder
from dietnerf_ns.viewer.browser_cameras import BrowserCameras
from dietnerf_ns.viewer.orbit import orbit_sphere
from dietnerf_ns.viewer.semantic import SemanticFolder
from dietnerf_ns.viewer.visualization import SemanticVisualization
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.encoders import FakeEncoder
from tests.helpers.fakes import bare
from tests.helpers.scenes import blender_outputs
from tests.helpers.training import start_training, train_step
from tests.helpers.viewer import CameraOnlyClient
from tests.helpers.viewer_browser import ViewerPage, free_port, missing_programs, training_with_viewer
from tests.helpers.waiting import wait_until


@pytest.fixture
def make_pipeline(monkeypatch, tiny_pipeline_config):
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self, device: FakeEncoder())

    def make(*, test_mode="val", **semantic):
        config = replace(tiny_pipeline_config, semantic=replace(tiny_pipeline_config.semantic, **semantic))
        return config.setup(device="cpu", test_mode=test_mode)

    return make


@pytest.fixture
def make_viewer(tmp_path, make_pipeline):
    """nerfstudio's viewer on a pipeline, with a number of connected browsers."""
    with contextlib.ExitStack() as servers:

        def make(pipeline, *, num_clients=1, **arguments):
            config = ViewerConfig(websocket_port=free_port(), websocket_host="127.0.0.1")
            viewer = Viewer(config, tmp_path / "log" / "viewer.txt", tmp_path, pipeline, **arguments)
            servers.callback(viewer.viser_server.stop)
            viewer.viser_server._connected_clients |= {i: CameraOnlyClient() for i in range(num_clients)}
            return viewer

        yield make


def elements(viewer):
    """Handles of what the viewer shows of the panel, by label; and the labels in order."""
    named = [(path, e) for path, e in viewer.viewer_elements if path.startswith("Custom Elements/dietnerf/")]
    return {e.name: e.gui_handle for _, e in named}, [(path.split("/")[2], e.name) for path, e in named]


def camera_of(viewer, client=0):
    """What nerfstudio's viewer renders for a browser: camera-to-world, OpenGL axes, scene units."""
    return viewer.get_camera_state(viewer.viser_server.get_clients()[client]).c2w.float()


def soon(condition):
    return wait_until(condition, "a callback of viser", seconds=10)


def test_viewer_shows_the_panel_in_order(make_pipeline, make_viewer):
    _, labels = elements(make_viewer(make_pipeline()))
    assert [name for folder, name in labels if folder == "orbit"] == [
        "theta",
        "phi",
        "radius",
        "Turntable",
        "Training view",
        "Go to training view",
    ]
    shown = [name for folder, name in labels if folder == "semantic_consistency" and name]
    assert shown == ["Pause L_sc", "lambda", "every K steps", "Show semantic poses"]


def test_sliders_put_every_browser_on_the_sphere_looking_at_its_centre(make_pipeline, make_viewer):
    pipeline = make_pipeline()
    viewer = make_viewer(pipeline, num_clients=2)
    shown, _ = elements(viewer)
    sphere = orbit_sphere(pipeline.datamanager.train_dataset.cameras.camera_to_worlds)
    for label, value in (("theta", 120.0), ("phi", -20.0), ("radius", 3.0)):
        shown[label].value = value

    def is_there(client):
        pose = camera_of(viewer, client)
        place = torch.stack(spherical_coordinates(pose[None], sphere.center, sphere.up))[:, 0]
        to_center = torch.nn.functional.normalize(sphere.center - pose[:, 3], dim=0)
        level = abs(float(pose[:, 0] @ sphere.up)) < 1e-5
        at_place = torch.allclose(place, torch.tensor([120.0, -20.0, 3.0]), atol=1e-3)
        return level and at_place and torch.allclose(-pose[:, 2], to_center, atol=1e-5)

    soon(lambda: is_there(0) and is_there(1))


def test_training_view_is_the_photos_own_camera(make_pipeline, make_viewer):
    pipeline = make_pipeline()
    viewer = make_viewer(pipeline)
    shown, _ = elements(viewer)
    shown["Training view"].value = "5: r_5.png"
    photo = pipeline.datamanager.train_dataset.cameras[5]
    soon(lambda: torch.allclose(camera_of(viewer), photo.camera_to_worlds, atol=1e-4))
    fov = viewer.viser_server.get_clients()[0].camera.fov
    assert math.tan(fov / 2) == pytest.approx(float(photo.height / 2 / photo.fy), rel=1e-5)


def test_turntable_turns_until_it_is_stopped(make_pipeline, make_viewer):
    viewer = make_viewer(make_pipeline())
    shown, _ = elements(viewer)
    start = shown["theta"].value
    before = camera_of(viewer)
    shown["Turntable"].value = True
    soon(lambda: (shown["theta"].value - start) % 360 >= 6)
    shown["Turntable"].value = False
    time.sleep(0.5)
    at_rest = shown["theta"].value
    assert not torch.allclose(camera_of(viewer), before, atol=1e-2)
    time.sleep(0.6)
    assert shown["theta"].value == at_rest


def test_moving_does_not_wait_for_a_render_or_a_training_step(make_pipeline, make_viewer):
    train_lock = threading.Lock()
    viewer = make_viewer(make_pipeline(), train_lock=train_lock)
    before = camera_of(viewer)
    with train_lock:
        elements(viewer)[0]["theta"].value = 170.0
        soon(lambda: not torch.allclose(camera_of(viewer), before))


def test_controls_act_on_the_running_training(make_pipeline, make_viewer):
    pipeline = make_pipeline()
    shown, _ = elements(make_viewer(pipeline))
    callbacks = start_training(pipeline)
    assert "semantic_loss" in train_step(pipeline, callbacks, 20)
    similarity = float(pipeline.semantic.last.similarity)
    shown["Pause L_sc"].value = True
    soon(lambda: not pipeline.semantic.is_due(20))
    _, losses, metrics = pipeline.get_train_loss_dict(20)
    assert "semantic_loss" not in losses and "semantic_loss" not in metrics
    shown["Pause L_sc"].value = False
    shown["lambda"].value = 0.5
    shown["every K steps"].value = 7
    soon(lambda: pipeline.semantic.is_due(7) and not pipeline.semantic.is_due(20))
    soon(lambda: pipeline.semantic.config.weight == 0.5)
    losses = train_step(pipeline, callbacks, 21)
    assert float(losses["semantic_loss"]) == pytest.approx(0.5 * (1 - float(pipeline.semantic.last.similarity)))
    assert similarity != float(pipeline.semantic.last.similarity)


def test_images_are_drawn_for_browsers_only_and_at_most_once_a_second(make_pipeline, make_viewer, monkeypatch):
    drawn = []
    real = SemanticVisualization.side_by_side
    monkeypatch.setattr(
        SemanticVisualization, "side_by_side", lambda *args, **kwargs: drawn.append(1) or real(*args, **kwargs)
    )
    pipeline = make_pipeline(every=1)
    viewer = make_viewer(pipeline, num_clients=0)
    callbacks = start_training(pipeline)
    monkeypatch.setattr(semantic_folder, "REFRESH_SECONDS", 0.0)
    train_step(pipeline, callbacks, 0)
    assert not drawn
    viewer.viser_server._connected_clients[0] = CameraOnlyClient()
    train_step(pipeline, callbacks, 1)
    assert len(drawn) == 1
    monkeypatch.setattr(semantic_folder, "REFRESH_SECONDS", 1000.0)
    for step in (2, 3, 4):
        train_step(pipeline, callbacks, step)
    assert len(drawn) == 2
    folder = pipeline.dietnerf.semantic_consistency
    assert 'src="data:image/jpeg;base64,' in folder.element_01.content
    assert re.search(r"Step 2\. Last semantic step 2: L_sc \d\.\d+, similarity", folder.element_00.content)
    assert folder.element_02.gui_handle.figure.data[0].x == (0,)
    assert len(folder.frusta.drawn) == 3, "one for each semantic step that was drawn"
    pipeline.semantic.switched_off = "as {1+1} says"  # a checkpoint's text, which is no code
    folder.refresh(4)
    assert "L_sc is switched off: as &#123;1&#43;1&#125; says." in folder.element_00.content


def test_of_changes_at_the_same_time_the_last_holds(tiny_scene):
    weights = []

    class Recorder(SemanticConsistency):
        def reconfigure(self, **settings):
            if later.ident is None:
                folder._weight.value = 0.5
                later.start()
                later.join(0.2)
            weights.append(settings["weight"])

    folder = SemanticFolder(SemanticConfig(), InputDataset(blender_outputs(tiny_scene)), BrowserCameras())
    later = threading.Thread(target=folder._change, args=(None,))
    folder.attach(bare(Recorder), bare(SemanticVisualization))
    later.join()
    assert weights == [SemanticConfig().weight, 0.5]


def test_without_a_viewer_nothing_is_done_for_the_panel(make_pipeline):
    pipeline = make_pipeline()
    callbacks = start_training(pipeline, writers="tensorboard")
    train_step(pipeline, callbacks, 0)
    assert pipeline.dietnerf.semantic_consistency.element_00.content == "No semantic view yet."
    assert any("SemanticImageLog" in callback.func.__qualname__ for callback in callbacks)
    assert not pipeline.dietnerf.in_viewer


def test_panel_of_a_run_without_semantic_loss_says_so(make_pipeline, make_viewer):
    pipeline = make_pipeline(weight=0.0)
    viewer = make_viewer(pipeline)
    shown, _ = elements(viewer)
    assert shown["Pause L_sc"].disabled and shown["lambda"].disabled and shown["every K steps"].disabled
    assert "no encoder" in pipeline.dietnerf.semantic_consistency.element_00.content
    train_step(pipeline, start_training(pipeline, writers="tensorboard"), 0)
    assert "no encoder" in pipeline.dietnerf.semantic_consistency.element_00.content


def test_several_processes_have_a_loss_that_one_viewer_cannot_change(make_pipeline, make_viewer, monkeypatch):
    monkeypatch.setattr(semantic_folder, "is_one_of_several", lambda: True)
    pipeline = make_pipeline(every=7)
    shown, _ = elements(make_viewer(pipeline))
    assert shown["Pause L_sc"].disabled and shown["lambda"].disabled and shown["every K steps"].disabled
    assert not shown["Show semantic poses"].disabled
    assert "Several processes" in pipeline.dietnerf.semantic_consistency.element_01.content
    shown["lambda"].value = 0.5
    start_training(pipeline)
    assert pipeline.semantic.config == pipeline.config.semantic and not pipeline.semantic.paused


def test_panel_outside_training_has_an_orbit_and_says_that_training_has_ended(make_pipeline, make_viewer):
    pipeline = make_pipeline(test_mode="test")
    viewer = make_viewer(pipeline)
    _, labels = elements(viewer)
    assert [name for folder, name in labels if folder == "semantic_consistency"] == [""]
    assert ("orbit", "theta") in labels
    assert "Training has ended" in pipeline.dietnerf.semantic_consistency.element_00.content


def test_what_the_controls_were_set_to_before_training_holds(make_pipeline, make_viewer):
    pipeline = make_pipeline()
    shown, _ = elements(make_viewer(pipeline))
    shown["lambda"].value = 0.5
    soon(lambda: pipeline.dietnerf.semantic_consistency.element_04.value == 0.5)
    start_training(pipeline)
    assert pipeline.semantic.config.weight == 0.5


def test_a_browser_that_is_opened_after_training_sees_the_run(make_pipeline, make_viewer):
    pipeline = make_pipeline(every=1)
    make_viewer(pipeline, num_clients=0)
    callbacks = start_training(pipeline)
    for step in (0, 1):
        train_step(pipeline, callbacks, step)
    folder = pipeline.dietnerf.semantic_consistency
    folder.end(2)
    assert folder.element_00.content.startswith("Training has ended at step 2. Step 2. Last semantic step 1")
    assert 'src="data:image/jpeg;base64,' in folder.element_01.content
    assert folder.element_02.gui_handle.figure.data[0].x == (0,) and len(folder.frusta.drawn) == 2


def test_panel_after_training_cannot_change_anything(make_pipeline, make_viewer):
    pipeline = make_pipeline()
    shown, _ = elements(make_viewer(pipeline))
    callbacks = start_training(pipeline)
    callbacks[-1].run_callback(step=99)
    assert shown["lambda"].disabled
    assert "Training has ended at step 99" in pipeline.dietnerf.semantic_consistency.element_00.content


def test_gradient_of_the_last_semantic_view_is_kept(make_pipeline):
    pipeline = make_pipeline()
    start_training(pipeline)
    pipeline.get_train_loss_dict(20)
    last, semantic = pipeline.semantic.last, pipeline.semantic
    renders = last.renders.clone().requires_grad_()
    loss = semantic_consistency_loss(
        semantic.similarity(renders, last.view.target_index), weight=semantic.config.weight
    )
    (gradient,) = torch.autograd.grad(loss, renders)
    assert gradient.abs().max() > 0
    assert torch.allclose(last.gradient, gradient, atol=1e-9)


def test_checkbox_hides_the_frusta_of_semantic_views(make_pipeline, make_viewer):
    pipeline = make_pipeline()
    viewer = make_viewer(pipeline)
    frusta = pipeline.dietnerf.semantic_consistency.frusta
    frusta.add(pinhole_cameras(ring_of_poses(1)))
    frusta.draw(viewer.viser_server)
    elements(viewer)[0]["Show semantic poses"].value = False
    soon(lambda: not any(handle.visible for handle in frusta.drawn))


@pytest.mark.browser
@pytest.mark.skipif(bool(missing_programs()), reason=f"needs {' and '.join(missing_programs())}")
def test_in_a_browser(tmp_path):
    arguments = ["--max-num-iterations", 100_000, "--pipeline.semantic.every", 5]
    with training_with_viewer(tmp_path, *arguments) as url, ViewerPage(url, tmp_path / "profile") as page:
        wait_until(lambda: "theta" in page.text() and "Last semantic step" in page.text(), "the panel")
        page.press_button("Hide Train Cams")
        page.control("Show semantic poses").click()
        page.press_button("Go to training view")
        wait_until(lambda: step_in(page, "Step ") > 30 and page.canvas().std() > 20, "a render with something in it")
        before = page.canvas()
        since = time.monotonic()
        page.move_slider("theta", 0.6)
        assert page.seconds_until_canvas_differs(before, by=5, since=since) < 20

        page.control("Pause L_sc").click()
        wait_until(lambda: "L_sc is paused" in page.text(), "the pause")
        paused_at, training_step = step_in(page, "Last semantic step "), step_in(page, "Step ")
        wait_until(lambda: step_in(page, "Step ") > training_step + 15, "training goes on")
        assert step_in(page, "Last semantic step ") == paused_at
        page.control("Pause L_sc").click()
        wait_until(lambda: step_in(page, "Last semantic step ") > paused_at, "L_sc goes on")

        page.screenshot(tmp_path / "viewer.png")
        assert (tmp_path / "viewer.png").stat().st_size > 50_000


def step_in(page, label):
    """The number after a label of the panel's status line."""
    return int(re.search(re.escape(label) + r"(\d+)", page.text()).group(1))
