"""The orbit folder of the panel: sliders, a turntable and the training views move the browsers' cameras.

theta is the azimuth and phi the elevation, both in degrees. Lengths are in scene units, and poses have OpenGL axes.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import torch
from jaxtyping import Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor
from torch.nn.functional import normalize

from dietnerf_ns.geometry.cameras import is_in_front, looking_at_one_place, viewing_directions
from dietnerf_ns.geometry.sphere import Sphere, fit_sphere, pose_at, spherical_coordinates
from dietnerf_ns.utils.files import readable
from dietnerf_ns.viewer.browser_cameras import BrowserCameras, vertical_fov
from dietnerf_ns.viewer.elements import Button, Checkbox, Dropdown, Folder, Slider

MAX_PHI_DEG = 89.0
"""At the poles the azimuth has no effect on the camera's position, so the sliders stop short of them."""

LEAST_MEAN_DIRECTION = 1e-3
"""Length of the mean of the viewing directions, below which it is only rounding."""

TURN_DEG = 3.0
TURN_PERIOD_SECONDS = 0.25
"""nerfstudio pauses training for 0.1 s after every camera movement, so a smoother rotation would stop the training."""


class OrbitFolder(Folder):
    """Controls that move the cameras of all connected browsers around the scene.

    Args:
        photos: the kept training views.
        browser_cameras: the cameras to move.
    """

    def __init__(self, photos: InputDataset, browser_cameras: BrowserCameras):
        super().__init__()
        self._browser_cameras, self._cameras = browser_cameras, photos.cameras.to("cpu")
        self._sphere = orbit_sphere(self._cameras.camera_to_worlds)
        theta, phi, radius = start_of_orbit(self._cameras.camera_to_worlds, self._sphere)
        self._theta = Slider("theta", theta, -180.0, 180.0, 1.0, cb_hook=self._move, hint="Azimuth in degrees")
        self._phi = Slider("phi", phi, -MAX_PHI_DEG, MAX_PHI_DEG, 1.0, cb_hook=self._move, hint="Elevation in degrees")
        self._radius = Slider(
            "radius", radius, radius / 10, 3 * radius, radius / 100, cb_hook=self._move, hint="Distance in scene units"
        )
        self._turntable = Checkbox("Turntable", False, cb_hook=self._start_or_stop, hint="Keep moving around the scene")
        self._views = [f"{index}: {readable(path.name)}" for index, path in enumerate(photos.image_filenames)]
        self._view = Dropdown("Training view", self._views[0], self._views, cb_hook=self._go_to_view)
        again = Button("Go to training view", cb_hook=self._go_to_view)
        self.show(self._theta, self._phi, self._radius, self._turntable, self._view, again)
        self._stop_turning = threading.Event()
        self._shown: tuple[float, float, float] | None = None
        # viser runs callbacks in parallel. Setting a value starts one and does not wait for it.
        self._lock = threading.Lock()

    def _place(self) -> tuple[float, float, float]:
        return self._theta.value, self._phi.value, self._radius.value

    def _look(self) -> None:
        center, up = self._sphere.center, self._sphere.up
        self._shown = self._place()
        azimuth, elevation, radius = (torch.tensor(value) for value in self._shown)
        pose = pose_at(center, up, azimuth=azimuth, elevation=elevation, radius=radius)
        self._browser_cameras.look(pose, up=up, distance=float(radius))

    def _move(self, _) -> None:
        with self._lock:
            if self._place() != self._shown:  # the turntable, which sets the slider, has moved the cameras already
                self._look()

    def _go_to_view(self, _) -> None:
        with self._lock:
            self._stop_turning.set()
            self._turntable.value = False
            camera = self._cameras[self._views.index(self._view.value)]
            pose = camera.camera_to_worlds
            distance = float((pose[:, 3] - self._sphere.center).norm())
            self._browser_cameras.look(pose, up=self._sphere.up, distance=distance, fov=vertical_fov(camera))

    def _start_or_stop(self, _) -> None:
        with self._lock:
            self._stop_turning.set()
            if self._turntable.value:
                self._stop_turning = threading.Event()
                threading.Thread(target=self._turn, args=(self._stop_turning,), daemon=True).start()

    def _turn(self, stop: threading.Event) -> None:
        while not stop.wait(TURN_PERIOD_SECONDS):
            with self._lock:
                if self._browser_cameras.connected() and not stop.is_set():
                    self._theta.value = (self._theta.value + TURN_DEG + 180) % 360 - 180
                    self._look()


def orbit_sphere(camera_to_worlds: Float[Tensor, "n 3 4"]) -> Sphere:
    """Fit a sphere to the training cameras whose centre lies in front of them.

    The centre is the point nearest to all optical axes, but for a few cameras that look elsewhere than the others. If
    that point is not in front of every camera, as in a panorama, the centre is the point one scene unit ahead of the
    cameras' mean position: in their mean direction, or in that of the first camera if they look all around.
    """
    camera_to_worlds = looking_at_one_place(camera_to_worlds)
    sphere = fit_sphere(camera_to_worlds)
    if is_in_front(sphere.center, camera_to_worlds):
        return sphere
    directions = viewing_directions(camera_to_worlds)
    mean = directions.mean(0)
    ahead = normalize(mean, dim=0) if mean.norm() > LEAST_MEAN_DIRECTION else directions[0]
    return replace(sphere, center=camera_to_worlds[:, :3, 3].mean(0) + ahead)


def start_of_orbit(camera_to_worlds: Float[Tensor, "n 3 4"], sphere: Sphere) -> tuple[float, float, float]:
    """Where the orbit starts: the direction of the first training camera, and the mean distance of all of them.

    Args:
        camera_to_worlds: the training cameras.
        sphere: the sphere of the orbit.

    Returns:
        Azimuth and elevation in whole degrees, and the radius in scene units.
    """
    azimuths, elevations, radii = spherical_coordinates(camera_to_worlds, sphere.center, sphere.up)
    elevation = elevations[0].clamp(-MAX_PHI_DEG, MAX_PHI_DEG)
    return float(azimuths[0].round()), float(elevation.round()), float(radii.mean())
