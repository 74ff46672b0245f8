"""What the cameras see, and the space, settings and background with which it is modelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dietnerf_ns.data.capture import Capture
from dietnerf_ns.fields.contraction import FrontFacingContraction
from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.geometry.cameras import is_front_facing, surround_one_object
from dietnerf_ns.geometry.visual_hull import InconsistentSilhouettes, VisualHull

SceneKind = Literal["object", "around", "front-facing"]

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
    return SceneSetup(box)


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
    if kind == "object":
        return _object(capture, hull, background)
    if kind == "front-facing":
        return _front_facing(capture)
    if capture.photos_opened:
        reason = " (the photos have no uniform background)" if wanted == "auto" and capture.background is None else ""
        CONSOLE.print(f"Scene: around{reason}.")
    return SceneSetup()


def _kind(capture: Capture) -> SceneKind:
    if is_front_facing(capture.cameras):
        return "front-facing"
    return "object" if capture.background is not None and surround_one_object(capture.cameras) else "around"


def _object(capture: Capture, hull: VisualHull | None, background: Float[Tensor, "3"] | None) -> SceneSetup:
    cube = ObjectBox.seen_by(capture.cameras)
    density = OBJECT_PRESET["average_init_density"] * BLENDER_HALF_SIZE / float(cube.half_sizes.max())
    box = _fitted(cube, hull)
    # A hull is known in training only; a trained box comes with the checkpoint.
    where = "" if hull is None else f" Box {_sides(box)} around {_numbers(box.center)}."
    colour = "" if background is None else f" Background RGB {_numbers(background)} from the photos."
    CONSOLE.print(f"Scene: object.{where}{colour} For a scene with surroundings: --pipeline.model.scene around.")
    return SceneSetup(box, OBJECT_PRESET | {"average_init_density": density}, background)


def _front_facing(capture: Capture) -> SceneSetup:
    contraction = FrontFacingContraction(capture.cameras)
    CONSOLE.print(f"Scene: front-facing, near plane {contraction.near:.2f}.")
    return SceneSetup(contraction, {"near_plane": float(contraction.near)})


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
