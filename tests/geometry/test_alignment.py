"""Differences of poses whatever the world frame."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dietnerf_ns.geometry.alignment import pose_errors
from tests.helpers.cameras import ring_of_poses


def poses():
    return {f"{i}.jpg": pose.double().numpy() for i, pose in enumerate(ring_of_poses(6))}


def in_another_frame(known):
    turn = Rotation.from_rotvec([0.4, -1.0, 2.0]).as_matrix()
    return {name: np.hstack([turn @ p[:, :3], 3 * (turn @ p[:, 3:]) + 7]) for name, p in known.items()}


def test_another_world_frame_is_no_error():
    assert pose_errors(in_another_frame(poses()), poses()) == pytest.approx((0, 0), abs=1e-5)


def test_a_turned_camera_and_a_moved_camera_are_found():
    known = poses()
    turned = in_another_frame(known)
    turned["0.jpg"][:, :3] = turned["0.jpg"][:, :3] @ Rotation.from_rotvec([0, np.radians(6), 0]).as_matrix()
    angle, distance = pose_errors(turned, known)
    assert angle == pytest.approx(5, abs=0.1) and distance < 0.2  # 6 degrees, of which the mean takes a sixth
    moved = in_another_frame(known)
    moved["0.jpg"][2, 3] += 3 * 0.6
    angle, distance = pose_errors(moved, known)
    assert angle == pytest.approx(0, abs=1e-3) and distance == pytest.approx(0.5, abs=0.1)
