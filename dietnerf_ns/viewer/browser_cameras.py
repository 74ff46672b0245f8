"""The cameras of the connected browsers, moved through viser: nerfstudio's own control has no implementation of it."""

from __future__ import annotations

from typing import overload

import numpy as np
import viser.transforms as vtf
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor
from viser import ClientHandle, ViserServer


class BrowserCameras(ViewerControl):
    """Moves the cameras of all connected browsers.

    nerfstudio's viewer finds this control among the pipeline's attributes and sets `viser_server`, which is None as
    long as there is no viewer.
    """

    viser_server: ViserServer | None = None  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def in_viewer(self) -> bool:
        """This is True once nerfstudio's viewer has set up the control."""
        return self.viser_server is not None

    def connected(self) -> list[ClientHandle]:
        """The browsers that are connected now; none without a viewer."""
        return [] if self.viser_server is None else list(self.viser_server.get_clients().values())

    def look(
        self,
        camera_to_world: Float[Tensor, "3 4"],
        *,
        up: Float[Tensor, "3"],
        distance: float,
        fov: float | None = None,
    ) -> None:
        """Show every connected browser the view of a camera.

        Args:
            camera_to_world: pose in scene units with OpenGL axes.
            up: unit vector around which the mouse turns the camera afterwards.
            distance: distance in scene units from the camera to the point around which the mouse turns it.
            fov: vertical field of view in radians. None leaves each browser's field of view unchanged.
        """
        wxyz, position = viser_pose(camera_to_world)
        look_at = position - to_viser_units(distance) * camera_to_world[:, 2].numpy()
        for browser in self.connected():
            with browser.atomic():
                browser.camera.up_direction = up.numpy()
                browser.camera.position = position
                browser.camera.look_at = look_at
                browser.camera.wxyz = wxyz
                if fov is not None:
                    browser.camera.fov = fov


def viser_pose(camera_to_world: Float[Tensor, "3 4"]) -> tuple[np.ndarray, np.ndarray]:
    """Convert a pose to viser's conventions.

    Args:
        camera_to_world: pose in scene units with OpenGL axes.

    Returns:
        The orientation of the OpenCV axes as a quaternion (w, x, y, z), and the position in viser's units.
    """
    matrix = camera_to_world.double().numpy()
    rotation = vtf.SO3.from_matrix(matrix[:, :3]) @ vtf.SO3.from_x_radians(np.pi)
    return rotation.wxyz, to_viser_units(matrix[:, 3])


@overload
def to_viser_units(length: float) -> float: ...
@overload
def to_viser_units(length: np.ndarray) -> np.ndarray: ...
def to_viser_units(length: float | np.ndarray) -> float | np.ndarray:
    """Convert a length or a position from scene units to the units in which nerfstudio shows the scene in viser."""
    from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO  # at module level the import would be circular

    return length * VISER_NERFSTUDIO_SCALE_RATIO


def vertical_fov(camera: Cameras) -> float:
    """Vertical field of view of a camera, shape [1] or [], in radians."""
    return 2 * float((0.5 * camera.height / camera.fy).atan())
