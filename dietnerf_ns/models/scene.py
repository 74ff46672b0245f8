"""What the cameras see, and the space, settings and background with which it is modelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from jaxtyping import Float
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
BLENDER_HALF_SIZE = 1.5
"""Half a side of the box of nerfstudio's blender-data, in scene units."""


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


def bounded_scene(aabb: Float[Tensor, "2 3"], hull: VisualHull | None) -> SceneSetup:
    """A scene inside the dataparser's box, which is reduced to the visual hull if there is one.

    Args:
        aabb: two corners of the box, in scene units.
        hull: of the foreground.
    """
    outer = ObjectBox.of(aabb)
    box = _fitted(outer, hull)
    if box is not outer:
        CONSOLE.print(f"Box: {_sides(box)}, from the silhouettes.")
    return SceneSetup(box, partial(BoxCollider, box))


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
    cube = ObjectBox.seen_by(capture.cameras)
    box = _fitted(cube, hull)
    # A hull is known in training only; a trained box comes with the checkpoint.
    where = "" if hull is None else f" Box {_sides(box)} around {_numbers(box.center)}."
    colour = "" if background is None else f" Background RGB {_numbers(background)} from the photos."
    CONSOLE.print(f"Scene: object.{where}{colour} For a scene with surroundings: --pipeline.model.scene around.")
    return SceneSetup(box, partial(BoxCollider, box), settings=_preset(cube), background=background)


def _around(capture: Capture, *_) -> SceneSetup:
    cube = ObjectBox.seen_by(capture.cameras, scene="around")
    space = CubeContraction(cube)
    distances = (capture.cameras.camera_to_worlds[:, :, 3].cpu() - cube.center).norm(dim=-1)
    settings = {name: value for name, value in _preset(cube).items() if name != "proposal_initial_sampler"}
    if capture.photos_opened:
        _report_around(capture, cube)
    reach = float(distances.median() + space.half_size)
    return SceneSetup(space, partial(GrowingSphereCollider, space), reach, settings)


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
    return SceneSetup(contraction, settings={"near_plane": float(contraction.near)})


def _inside_out(capture: Capture, *_) -> SceneSetup:
    if capture.photos_opened:
        CONSOLE.print("Scene: inside-out (the cameras do not look at one place); nerfacto's contraction.")
    return SceneSetup()


def _preset(cube: ObjectBox) -> dict[str, Any]:
    """Settings of a scene that has an object in its middle; the initial density is per length of the cube."""
    density = OBJECT_PRESET["average_init_density"] * BLENDER_HALF_SIZE / float(cube.half_sizes.max())
    return OBJECT_PRESET | {"average_init_density": density}


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
