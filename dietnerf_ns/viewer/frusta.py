"""Camera frusta in the viewer's 3D scene that show from where the latest semantic views were rendered."""

from __future__ import annotations

from collections import deque

import numpy as np
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor
from viser import CameraFrustumHandle, ViserServer

from dietnerf_ns.viewer.browser_cameras import to_viser_units, vertical_fov, viser_pose

NUM_FRUSTA = 20
COLOUR = (255, 211, 105)


class SemanticFrusta:
    """Frusta of the latest `NUM_FRUSTA` semantic views.

    Args:
        like: a training camera, shape [1]. Semantic views have its field of view and aspect ratio.
        size: size of a frustum in scene units.
    """

    def __init__(self, like: Cameras, *, size: float):
        self._fov, self._aspect, self._size = vertical_fov(like), float(like.width / like.height), size
        self._pending: deque[tuple[int, Tensor]] = deque(maxlen=NUM_FRUSTA)
        self._handles: dict[int, CameraFrustumHandle] = {}
        self._count = 0
        self._visible = True

    def add(self, camera_to_world: Float[Tensor, "3 4"]) -> None:
        """Queue a pose with OpenGL axes. When it is drawn, it replaces the oldest frustum."""
        self._pending.append((self._count % NUM_FRUSTA, camera_to_world))
        self._count += 1

    def draw(self, server: ViserServer) -> None:
        """Show the poses that were added since the last call."""
        while self._pending:
            slot, camera_to_world = self._pending.popleft()
            wxyz, position = viser_pose(camera_to_world)
            if slot in self._handles:
                self._handles[slot].wxyz, self._handles[slot].position = wxyz, position
            else:
                self._handles[slot] = self._frustum(server, slot, wxyz, position)

    def _frustum(self, server: ViserServer, slot: int, wxyz: np.ndarray, position: np.ndarray) -> CameraFrustumHandle:
        return server.scene.add_camera_frustum(
            f"/semantic_views/{slot:02d}",
            fov=self._fov,
            aspect=self._aspect,
            scale=to_viser_units(self._size),
            color=COLOUR,
            wxyz=wxyz,
            position=position,
            visible=self._visible,
        )

    @property
    def drawn(self) -> list[CameraFrustumHandle]:
        """The frusta in the 3D scene, at most as many as are kept."""
        return list(self._handles.values())

    def set_visible(self, visible: bool) -> None:
        """Show or hide all frusta, including those that are drawn later."""
        self._visible = visible
        for handle in self.drawn:
            handle.visible = visible
