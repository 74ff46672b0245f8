import numpy as np
import pytest
import torch
from viser import ViserServer

from dietnerf_ns.viewer.frusta import NUM_FRUSTA, SemanticFrusta
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.viewer_browser import free_port

VISER_UNITS_PER_SCENE_UNIT = 10


@pytest.fixture
def server():
    server = ViserServer(host="127.0.0.1", port=free_port(), verbose=False)
    yield server
    server.stop()


@pytest.fixture
def frusta():
    return SemanticFrusta(pinhole_cameras(ring_of_poses(1), width=40, height=30, focal=15.0), size=0.2)


def test_frusta_are_at_the_latest_semantic_poses(frusta, server):
    poses = ring_of_poses(NUM_FRUSTA + 3)
    for pose in poses[:-1]:
        frusta.add(pose)
    frusta.draw(server)
    frusta.add(poses[-1])
    frusta.draw(server)
    positions = torch.tensor(np.stack([handle.position for handle in frusta.drawn]))
    latest = poses[-NUM_FRUSTA:, :, 3].double()
    assert len(positions) == NUM_FRUSTA
    assert torch.cdist(latest, positions / VISER_UNITS_PER_SCENE_UNIT).min(dim=1).values.max() < 1e-5


def test_frusta_have_the_field_of_view_of_the_training_camera(frusta, server, monkeypatch):
    drawn, add = [], server.scene.add_camera_frustum
    monkeypatch.setattr(
        server.scene, "add_camera_frustum", lambda n, **values: drawn.append(values) or add(n, **values)
    )
    frusta.add(ring_of_poses(1)[0])
    frusta.draw(server)
    (frustum,) = drawn
    assert frustum["fov"] == pytest.approx(np.pi / 2), "2 atan(15 / 15)"
    assert frustum["aspect"] == pytest.approx(4 / 3)
    assert frustum["scale"] == pytest.approx(0.2 * VISER_UNITS_PER_SCENE_UNIT)


def test_hiding_applies_to_drawn_and_to_later_frusta(frusta, server):
    frusta.add(ring_of_poses(2)[0])
    frusta.draw(server)
    frusta.set_visible(False)
    frusta.add(ring_of_poses(2)[1])
    frusta.draw(server)
    assert [handle.visible for handle in frusta.drawn] == [False, False]
    frusta.set_visible(True)
    assert [handle.visible for handle in frusta.drawn] == [True, True]
