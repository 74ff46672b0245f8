"""Camera frusta in the viewer's 3D scene that show from where the latest semantic views were rendered."""

from __future__ import annotations

from collections import deque

from nerfstudio.cameras.cameras import Cameras
from viser import CameraFrustumHandle, ViserServer

from dietnerf_ns.viewer.browser_cameras import to_viser_units, vertical_fov, viser_pose

NUM_FRUSTA = 20
COLOUR = (255, 211, 105)


class SemanticFrusta:
    """Frusta of the latest `NUM_FRUSTA` semantic views.

    Args:
        size: size of a frustum in scene units.
    """

    def __init__(self, *, size: float):
        self._size = size
        self._pending: deque[tuple[int, Cameras]] = deque(maxlen=NUM_FRUSTA)
        self._handles: dict[int, CameraFrustumHandle] = {}
        self._count = 0
        self._visible = True

    def add(self, camera: Cameras) -> None:
        """Queue a view's camera, shape [1]. When it is drawn, it replaces the oldest frustum."""
        self._pending.append((self._count % NUM_FRUSTA, camera))
        self._count += 1

    def draw(self, server: ViserServer) -> None:
        """Show the views that were added since the last call."""
        while self._pending:
            slot, camera = self._pending.popleft()
            self._handles[slot] = self._frustum(server, slot, camera)

    def _frustum(self, server: ViserServer, slot: int, camera: Cameras) -> CameraFrustumHandle:
        wxyz, position = viser_pose(camera.camera_to_worlds[0])
        return server.scene.add_camera_frustum(
            f"/semantic_views/{slot:02d}",  # takes the place of an older one with this name
            fov=vertical_fov(camera),
            aspect=float(camera.width / camera.height),
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
