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
    return SemanticFrusta(size=0.2)


def camera_at(pose, *, width=40, height=30):
    return pinhole_cameras(pose[None], width=width, height=height, focal=15.0)


def test_frusta_are_at_the_latest_semantic_poses(frusta, server):
    poses = ring_of_poses(NUM_FRUSTA + 3)
    for pose in poses[:-1]:
        frusta.add(camera_at(pose))
    frusta.draw(server)
    frusta.add(camera_at(poses[-1]))
    frusta.draw(server)
    positions = torch.tensor(np.stack([handle.position for handle in frusta.drawn]))
    latest = poses[-NUM_FRUSTA:, :, 3].double()
    assert len(positions) == NUM_FRUSTA
    assert torch.cdist(latest, positions / VISER_UNITS_PER_SCENE_UNIT).min(dim=1).values.max() < 1e-5


def test_frusta_have_the_field_of_view_and_the_shape_of_their_views(frusta, server, monkeypatch):
    drawn, add = [], server.scene.add_camera_frustum
    monkeypatch.setattr(
        server.scene, "add_camera_frustum", lambda n, **values: drawn.append(values) or add(n, **values)
    )
    pose = ring_of_poses(1)[0]
    for number in range(NUM_FRUSTA + 1):
        frusta.add(camera_at(pose) if number < NUM_FRUSTA else camera_at(pose, width=30, height=40))
    frusta.draw(server)
    wide, *_, tall = drawn
    assert wide["fov"] == pytest.approx(np.pi / 2), "2 atan(15 / 15)"
    assert tall["fov"] == pytest.approx(2 * np.arctan(20 / 15))
    assert (wide["aspect"], tall["aspect"]) == pytest.approx((4 / 3, 3 / 4))
    assert tall["scale"] == pytest.approx(0.2 * VISER_UNITS_PER_SCENE_UNIT)


def test_hiding_applies_to_drawn_and_to_later_frusta(frusta, server):
    frusta.add(camera_at(ring_of_poses(2)[0]))
    frusta.draw(server)
    frusta.set_visible(False)
    frusta.add(camera_at(ring_of_poses(2)[1]))
    frusta.draw(server)
    assert [handle.visible for handle in frusta.drawn] == [False, False]
    frusta.set_visible(True)
    assert [handle.visible for handle in frusta.drawn] == [True, True]
