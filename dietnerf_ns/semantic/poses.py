"""Where semantic views are rendered from: poses on a sphere around the scene, or between the training cameras.

Poses are camera-to-world matrices [3, 4] with OpenGL axes (the camera looks along its -z, +y is up); angles are in
degrees, lengths in scene units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Generator, Tensor

from dietnerf_ns.geometry.cameras import cameras_surround_scene
from dietnerf_ns.geometry.sphere import ALL_AZIMUTHS, Range, Sphere, fit_sphere, pose_at

PoseSampler = Callable[[Generator], Float[Tensor, "3 4"]]
"""Draws the pose of a semantic view from a generator's random numbers."""

OTHER_UNIT = 1.25
"""Ratio of distances that only another unit of length explains."""


def pose_sampler(
    camera_to_worlds: Float[Tensor, "n 3 4"],
    poses: Literal["auto", "sphere", "interpolate"],
    *,
    whole_circle: bool = False,
    theta_range: Range | None = None,
    phi_range: Range | None = None,
    radius_range: Range | None = None,
) -> PoseSampler:
    """Decide where semantic views are rendered from, and print it.

    Args:
        camera_to_worlds: the training cameras.
        poses: `sphere`, `interpolate`, or `auto`: the sphere if the cameras surround the scene.
        whole_circle: whether the sphere has all azimuths, and not only those that the training cameras cover.
        theta_range: azimuth of the sphere; see `whole_circle` if None.
        phi_range: elevation of the sphere; that of the training cameras if None.
        radius_range: distance to the sphere's centre; that of the training cameras if None.
    """
    ranges = {"azimuth_range": theta_range, "elevation_range": phi_range, "radius_range": radius_range}
    given = {name: limits for name, limits in ranges.items() if limits is not None}
    if poses == "auto":
        surround = cameras_surround_scene(camera_to_worlds)
        poses = "sphere" if surround else "interpolate"
        reason = "surround the scene" if surround else "do not surround the scene"
        CONSOLE.print(f"Semantic poses: {poses} (the training cameras {reason}).")
    if poses == "sphere":
        sphere = fit_sphere(camera_to_worlds)
        if whole_circle:
            sphere = replace(sphere, azimuth_range=ALL_AZIMUTHS)
        of_cameras, sphere = sphere.radius_range, replace(sphere, **given)
        CONSOLE.print(f"Semantic poses: {_in_words(sphere)}.")
        _check_radius(sphere.radius_range, of_cameras)
        return lambda generator: pose_on_sphere(sphere, generator)
    if given:
        CONSOLE.print(
            "[yellow]Semantic poses: interpolated poses ignore theta-range, phi-range and radius-range.[/yellow]"
        )
    return lambda generator: interpolated_pose(camera_to_worlds, generator)


def _check_radius(given: Range, of_cameras: Range) -> None:
    """dietnerf-vanilla's range is that of NeRF-Synthetic, whatever the unit of length of the photos' cameras."""
    if given[0] > OTHER_UNIT * of_cameras[1] or given[1] * OTHER_UNIT < of_cameras[0]:
        low, high = of_cameras
        CONSOLE.print(
            f"[yellow]Semantic poses: radius-range {given[0]:g} {given[1]:g} is not at the training cameras' distances "
            f"from the scene, {low:.3g} to {high:.3g}: semantic views may see nothing of it. "
            f"--pipeline.semantic.radius-range {low:.3g} {high:.3g} puts them there.[/yellow]",
            soft_wrap=True,
        )


def _in_words(sphere: Sphere) -> str:
    theta, phi = (f"{low:.0f} to {high:.0f} degrees" for low, high in (sphere.azimuth_range, sphere.elevation_range))
    low, high = sphere.radius_range
    center = ", ".join(f"{x:.2f}" for x in sphere.center.tolist())
    return f"theta {theta}, phi {phi}, radius {low:.2f} to {high:.2f} around ({center})"


def pose_on_sphere(sphere: Sphere, generator: Generator) -> Float[Tensor, "3 4"]:
    """A camera at uniformly random azimuth, elevation and radius that looks at the centre."""
    azimuth = _uniform(sphere.azimuth_range, generator)
    elevation = _uniform(sphere.elevation_range, generator)
    radius = _uniform(sphere.radius_range, generator)
    return pose_at(sphere.center, sphere.up, azimuth=azimuth, elevation=elevation, radius=radius)


def _uniform(interval: Range, generator: Generator) -> Float[Tensor, ""]:
    low, high = interval
    return low + (high - low) * torch.rand((), generator=generator)


def interpolated_pose(camera_to_worlds: Float[Tensor, "n 3 4"], generator: Generator) -> Float[Tensor, "3 4"]:
    """A random convex combination of up to three training poses, for front-facing captures (paper, section 4.1).

    The weights are uniform on the simplex. The rotation is the chordal mean: the weighted sum of the rotation matrices,
    projected back to SO(3).
    """
    count = min(3, len(camera_to_worlds))
    chosen = camera_to_worlds[torch.randperm(len(camera_to_worlds), generator=generator)[:count]]
    weights = -torch.rand(count, generator=generator).clamp_min(1e-12).log()
    mean = (chosen * (weights / weights.sum())[:, None, None]).sum(0)
    left, _, right = torch.linalg.svd(mean[:, :3])
    handedness = torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(left @ right))]))
    return torch.cat([left @ handedness @ right, mean[:, 3:]], dim=-1)
