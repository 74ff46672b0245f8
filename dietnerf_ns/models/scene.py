"""What the cameras see, and the space, settings and background that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from nerfstudio.models.nerfacto import NerfactoModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dietnerf_ns.data.datamanager import ONE_BACKGROUND, TRAIN_CAMERAS, VISUAL_HULL
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
BLENDER_HALF_SIZE = 1.5  # of blender-data's box


@dataclass(frozen=True)
class Photos:
    """What is known of the photos when a model is built; when it is rendered there may be none."""

    cameras: Cameras | None
    background: Float[Tensor, "3"] | None
    """That all photos have in common, RGB in [0, 1]."""
    hull: VisualHull | None

    @classmethod
    def described_by(cls, metadata: Mapping[str, Any]) -> Photos:
        """As the datamanager put it into a dataset's metadata."""
        return cls(*(metadata.get(key) for key in (TRAIN_CAMERAS, ONE_BACKGROUND, VISUAL_HULL)))


@dataclass(frozen=True)
class Scene:
    """How a scene is to be modelled."""

    space: SpatialDistortion | None = None
    """World to [-2, 2]^3; None: as nerfacto has it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the model, in place of its defaults."""
    background: Float[Tensor, "3"] | None = None
    """RGB in [0, 1] in place of the model's background colour."""


def bounded_scene(aabb: Float[Tensor, "2 3"], photos: Photos) -> Scene:
    """A scene inside the dataparser's box, which is made smaller where the photos allow it."""
    outer = ObjectBox.of(aabb)
    box = _shrunk(outer, photos)
    if box is not outer:
        CONSOLE.print(f"Box: {_sides(box)}, by the outlines in the photos.")
    return Scene(box)


def recognised_scene(wanted: Literal["auto"] | SceneKind, photos: Photos, *, background_color: str) -> Scene:
    """A scene by what its cameras see.

    Args:
        wanted: what kind of scene, or to find that out.
        photos: what is known of them; without a hull the box of a thing is as large as the photos show.
        background_color: of the model; nerfacto's default makes way for that of the photos.

    Raises:
        UserError: the cameras do not fit the kind of scene.
    """
    if photos.cameras is None:
        return Scene()
    kind = _kind(photos) if wanted == "auto" else wanted
    if kind == "object":
        return _object(photos, background_color)
    return _front_facing(photos.cameras) if kind == "front-facing" else Scene()


def _kind(photos: Photos) -> SceneKind:
    if is_front_facing(photos.cameras):
        return "front-facing"
    return "object" if photos.background is not None and surround_one_object(photos.cameras) else "around"


def _object(photos: Photos, background_color: str) -> Scene:
    cube = ObjectBox.seen_by(photos.cameras)
    density = OBJECT_PRESET["average_init_density"] * BLENDER_HALF_SIZE / float(cube.half_sizes.max())
    box = _shrunk(cube, photos)
    background = photos.background if background_color == NerfactoModelConfig.background_color else None
    colour = background_color if background is None else f"RGB {_numbers(background)}, as in the photos"
    # A hull is known while training only; a trained box comes with the checkpoint.
    where = "" if photos.hull is None else f" in a box of {_sides(box)} around {_numbers(box.center)},"
    CONSOLE.print(
        f"Scene: one thing with nothing around it,{where} background {colour}. "
        "Otherwise: --pipeline.model.scene around."
    )
    return Scene(box, OBJECT_PRESET | {"average_init_density": density}, background)


def _front_facing(cameras: Cameras) -> Scene:
    contraction = FrontFacingContraction(cameras)
    CONSOLE.print(f"Scene: seen from the front, near plane {contraction.near:.2f}.")
    return Scene(contraction, {"near_plane": float(contraction.near)})


def _shrunk(box: ObjectBox, photos: Photos) -> ObjectBox:
    if photos.hull is None:
        return box
    try:
        return box.shrunk_to(photos.hull)
    except InconsistentSilhouettes as error:
        CONSOLE.print(f"[bold yellow]{error}: are the camera poses right? The box stays as it is.[/bold yellow]")
        return box


def _sides(box: ObjectBox) -> str:
    return " x ".join(f"{2 * half:.2f}" for half in box.half_sizes.tolist())


def _numbers(values: Float[Tensor, "n"]) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values.tolist()) + ")"
