"""A browser stand-in for nerfstudio's viewer."""

import contextlib
import time
from types import SimpleNamespace

import numpy as np
from viser import CameraHandle, ClientHandle


class CameraOnlyClient(ClientHandle):
    """A connected browser that has nothing but viser's camera."""

    def __init__(self):
        self._websock_connection = SimpleNamespace(queue_message=lambda message: None)
        self.atomic = contextlib.nullcontext
        self.camera = CameraHandle(self)
        state = self.camera._state
        state.update_timestamp, state.fov, state.aspect = time.time(), 1.0, 1.5
        state.position, state.look_at = np.array([3.0, 2.0, 1.0]), np.zeros(3)
        state.up_direction = np.array([0.0, 0.0, 1.0])
