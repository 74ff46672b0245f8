"""What the cameras see, and the space, settings and background with which it is modelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dietnerf_ns.data.capture import Capture
from dietnerf_ns.fields.contraction import FrontFacingContraction
from dietnerf_ns.fields.object_box import BoxCollider, ObjectBox
from dietnerf_ns.fields.surroundings import CubeContraction, GrowingSphereCollider
from dietnerf_ns.geometry.cameras import is_front_facing, surround_one_object, widest_viewing_angle
from dietnerf_ns.geometry.visual_hull import InconsistentSilhouettes, VisualHull

SceneKind = Literal["object", "around", "front-facing", "inside-out"]

OBJECT_PRESET = {
    "proposal_initial_sampler": "uniform",
    "distortion_loss_mult": 0.0,
    "average_init_density": 1.0,
}
BLENDER_PRESET = {
    "near_plane": 2.0,
    "far_plane": 6.0,
    "background_color": "white",
    "disable_scene_contraction": True,
    **OBJECT_PRESET,
}
"""What NeRF-Synthetic scenes need, as in nerfstudio's own benchmark of them."""
BLENDER_PLANES = (BLENDER_PRESET["near_plane"], BLENDER_PRESET["far_plane"])
BLENDER_HALF_SIZE = 1.5
"""Half a side of the box of nerfstudio's blender-data, in scene units."""

USUAL_DISTANCES = (0.2, 20.0)
"""Distances of the cameras from what they look at, in scene units, for which nerfacto's near and far planes are."""
SIMILAR_SIZE = (0.5, 1.1)
"""Size of what the cameras see relative to the dataparser's box, between which that box is kept."""
LARGEST_OFFSET = 0.5
"""Distance of what the cameras see from the middle of the dataparser's box, in halves of its sides, up to which that
box is kept."""


@dataclass(frozen=True)
class SceneSetup:
    """How a scene is modelled."""

    space: SpatialDistortion | None = None
    """Maps the world to [-2, 2]^3; None leaves nerfacto's contraction."""
    collider: Callable[[float, float], NearFarCollider] | None = None
    """Makes what limits the rays from the near and the far plane; None leaves nerfacto's."""
    reach: float | None = None
    """Distance from a camera, in scene units, that gets half of a ray's first samples; None leaves nerfacto's 1."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the model that the scene determines."""
    background: Float[Tensor, "3"] | None = None
    """RGB in [0, 1] in place of the model's background colour."""
    object_box: ObjectBox | None = None
    """Around what the photos show; None if this is not known."""
    has_silhouettes: bool = False
    """Whether the box is fitted to silhouettes; others are much larger than what is in them."""
    is_bounded: bool = False
    """Whether there is nothing behind the object that could show its background."""


def bounded_scene(
    aabb: Float[Tensor, "2 3"], capture: Capture | None, hull: VisualHull | None, *, fit_box: bool
) -> SceneSetup:
    """A scene inside the dataparser's box, which is reduced to the visual hull if there is one.

    If the cameras see a place of another size, as in another unit of length, that is reduced instead.

    Args:
        aabb: two corners of the box, in scene units.
        capture: the training views, if they are known.
        hull: of the foreground.
        fit_box: whether rays are limited to the box.
    """
    settings = {}
    if capture is not None and surround_one_object(capture.cameras):
        settings = _planes_for(capture.cameras, ObjectBox.seen_by(capture.cameras, has_hull=hull is not None))
    if not fit_box:
        seen = None if capture is None else object_seen_by(capture)
        return SceneSetup(settings=settings, object_box=seen, is_bounded=True)
    outer = ObjectBox.of(aabb)
    if capture is not None and capture.photos_opened:  # otherwise the trained box comes with the checkpoint
        outer = _outer_box(aabb, capture.cameras, hull)
    box = _fitted(outer, hull)
    if box is not outer:
        CONSOLE.print(f"Box: {_sides(box)}, from the silhouettes.")
    return SceneSetup(
        box,
        partial(BoxCollider, box),
        settings=settings,
        object_box=box,
        has_silhouettes=box is not outer,
        is_bounded=True,
    )


def object_seen_by(capture: Capture) -> ObjectBox | None:
    """The box around the object that the photos show, or None if the cameras do not surround one."""
    if not surround_one_object(capture.cameras):
        return None
    cube = ObjectBox.seen_by(capture.cameras, has_hull=capture.hull is not None)
    if capture.hull is None:
        return cube
    try:
        return cube.shrunk_to(capture.hull)
    except InconsistentSilhouettes:
        return cube


def _outer_box(aabb: Float[Tensor, "2 3"], cameras: Cameras, hull: VisualHull | None) -> ObjectBox:
    """The dataparser's box, or what the cameras see if that is elsewhere or has another size.

    Without a hull there may be surroundings in the box, which is then replaced only if it is too small.
    """
    box = ObjectBox.of(aabb)
    if not surround_one_object(cameras):
        return box
    cube = ObjectBox.seen_by(cameras, has_hull=hull is not None)
    size, offset = cube.half_sizes.max() / box.half_sizes.max(), (cube.center - box.center).abs() / box.half_sizes
    if hull is None:
        return box if float(offset.max() + size) <= SIMILAR_SIZE[1] else cube
    is_similar = SIMILAR_SIZE[0] <= float(size) <= SIMILAR_SIZE[1] and float(offset.max()) <= LARGEST_OFFSET
    return box if is_similar else cube


def recognised_scene(
    wanted: Literal["auto"] | SceneKind,
    capture: Capture,
    *,
    hull: VisualHull | None,
    background: Float[Tensor, "3"] | None,
) -> SceneSetup:
    """The setup of a scene according to what its cameras see.

    Args:
        wanted: the kind of scene, or `auto` to recognise it.
        capture: the training views.
        hull: reduces the box of an object; without it the box is as large as the photos show.
        background: that of an object, RGB in [0, 1]; None leaves the model's.

    Raises:
        SettingError: the cameras do not fit the kind of scene.
    """
    kind = _kind(capture) if wanted == "auto" else wanted
    setups = {"object": _object, "around": _around, "front-facing": _front_facing, "inside-out": _inside_out}
    return setups[kind](capture, hull, background)


def _kind(capture: Capture) -> SceneKind:
    if is_front_facing(capture.cameras):
        return "front-facing"
    if not surround_one_object(capture.cameras):
        return "inside-out"
    return "around" if capture.background is None else "object"


def _object(capture: Capture, hull: VisualHull | None, background: Float[Tensor, "3"] | None) -> SceneSetup:
    cube = ObjectBox.seen_by(capture.cameras, has_hull=hull is not None)
    box = _fitted(cube, hull)
    # A hull is known in training only; a trained box comes with the checkpoint.
    where = "" if hull is None else f" Box {_sides(box)} around {_numbers(box.center)}."
    colour = "" if background is None else f" Background RGB {_numbers(background)} from the photos."
    CONSOLE.print(f"Scene: object.{where}{colour} For a scene with surroundings: --pipeline.model.scene around.")
    return SceneSetup(
        box,
        partial(BoxCollider, box),
        settings=_preset(cube) | _planes_for(capture.cameras, cube),
        background=background,
        object_box=box,
        has_silhouettes=box is not cube,
        is_bounded=True,
    )


def _around(capture: Capture, *_) -> SceneSetup:
    cube = ObjectBox.seen_by(capture.cameras, scene="around")
    space = CubeContraction(cube)
    settings = {name: value for name, value in _preset(cube).items() if name != "proposal_initial_sampler"}
    settings |= _planes_for(capture.cameras, cube)
    if capture.photos_opened:
        _report_around(capture, cube)
    reach = _distance(capture.cameras, cube) + float(space.half_size)
    return SceneSetup(space, partial(GrowingSphereCollider, space), reach, settings, object_box=cube)


def _report_around(capture: Capture, cube: ObjectBox) -> None:
    angle = widest_viewing_angle(capture.cameras.camera_to_worlds)
    no_background = ", the photos have no uniform background" if capture.background is None else ""
    CONSOLE.print(
        f"Scene: around (the cameras look at one place from sides up to {angle:.0f} degrees apart{no_background}). In "
        f"detail: a cube of side {2 * float(cube.half_sizes.max()):.2f} around {_numbers(cube.center)}."
    )


def _front_facing(capture: Capture, *_) -> SceneSetup:
    contraction = FrontFacingContraction(capture.cameras)
    CONSOLE.print(f"Scene: front-facing, near plane {contraction.near:.2f}.")
    planes = {"near_plane": float(contraction.near)}
    if contraction.near > USUAL_DISTANCES[1]:
        planes["far_plane"] = 1000.0 * float(contraction.near)
    return SceneSetup(contraction, settings=planes)


def _inside_out(capture: Capture, *_) -> SceneSetup:
    if capture.photos_opened:
        CONSOLE.print("Scene: inside-out (the cameras do not look at one place); nerfacto's contraction.")
    return SceneSetup()


def _preset(cube: ObjectBox) -> dict[str, Any]:
    """Settings of a scene that has an object in its middle; the initial density is per length of the cube."""
    density = OBJECT_PRESET["average_init_density"] * BLENDER_HALF_SIZE / float(cube.half_sizes.max())
    return OBJECT_PRESET | {"average_init_density": density}


def _planes_for(cameras: Cameras, cube: ObjectBox) -> dict[str, float]:
    """nerfacto's planes in the scene's unit of length; nothing if that is a usual one."""
    distance = _distance(cameras, cube)
    if USUAL_DISTANCES[0] <= distance <= USUAL_DISTANCES[1]:
        return {}
    return {"near_plane": 0.05 * distance, "far_plane": 1000.0 * distance}


def _distance(cameras: Cameras, cube: ObjectBox) -> float:
    """Median distance of the cameras from the middle of what they look at."""
    return float((cameras.camera_to_worlds[:, :, 3].cpu() - cube.center).norm(dim=-1).median())


def _fitted(box: ObjectBox, hull: VisualHull | None) -> ObjectBox:
    if hull is None:
        return box
    try:
        return box.shrunk_to(hull)
    except InconsistentSilhouettes as error:
        CONSOLE.print(f"[bold yellow]{error}. Are the camera poses right? The box is not fitted.[/bold yellow]")
        return box


def _sides(box: ObjectBox) -> str:
    return " x ".join(f"{2 * half:.2f}" for half in box.half_sizes.tolist())


def _numbers(values: Float[Tensor, "n"]) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values.tolist()) + ")"
