"""The cameras of connected browsers. nerfstudio's own control has no way to move them; viser has."""

from __future__ import annotations

import numpy as np
import viser.transforms as vtf
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor
from viser import ClientHandle, ViserServer


class BrowserCameras(ViewerControl):
    """Moves the cameras of all connected browsers; nerfstudio's viewer sets it up when there is one."""

    viser_server: ViserServer | None = None

    @property
    def in_viewer(self) -> bool:
        """Whether there is a viewer."""
        return self.viser_server is not None

    def connected(self) -> list[ClientHandle]:
        """The browsers that show the viewer now."""
        return list(self.viser_server.get_clients().values()) if self.in_viewer else []

    def look(
        self,
        camera_to_world: Float[Tensor, "3 4"],
        *,
        up: Float[Tensor, "3"],
        distance: float,
        fov: float | None = None,
    ) -> None:
        """Show the view of a camera.

        Args:
            camera_to_world: scene units, OpenGL axes.
            up: unit vector around which the mouse turns the camera from then on.
            distance: in scene units, of the point in front of the camera around which the mouse turns it.
            fov: vertical field of view in radians; stays as it is when not given.
        """
        wxyz, position = viser_pose(camera_to_world)
        look_at = position - to_viser_units(distance) * camera_to_world[:, 2].numpy()
        for client in self.connected():
            with client.atomic():
                client.camera.up_direction = up.numpy()
                client.camera.position = position
                client.camera.look_at = look_at
                client.camera.wxyz = wxyz
                if fov is not None:
                    client.camera.fov = fov


def viser_pose(camera_to_world: Float[Tensor, "3 4"]) -> tuple[np.ndarray, np.ndarray]:
    """Orientation, as a quaternion w, x, y, z of OpenCV axes, and position as viser takes them.

    Args:
        camera_to_world: scene units, OpenGL axes.
    """
    matrix = camera_to_world.double().numpy()
    rotation = vtf.SO3.from_matrix(matrix[:, :3]) @ vtf.SO3.from_x_radians(np.pi)
    return rotation.wxyz, to_viser_units(matrix[:, 3])


def to_viser_units(length: float | np.ndarray) -> float | np.ndarray:
    """A length or position in scene units as nerfstudio shows it in viser."""
    from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO  # its import needs ours to have ended

    return length * VISER_NERFSTUDIO_SCALE_RATIO


def vertical_fov(camera: Cameras) -> float:
    """Vertical field of view of a camera, shape [1] or [], in radians."""
    return 2 * float((0.5 * camera.height / camera.fy).atan())
