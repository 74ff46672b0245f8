"""Whether the near and far planes and the background colour that are set agree with what the photos show.

Planes that leave an object outside, and a background that the photos do not have, cost a training without an error.
"""

from __future__ import annotations

from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.colors import COLORS_DICT
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dietnerf_ns.data.capture import Capture
from dietnerf_ns.data.foreground import TOLERANCE
from dietnerf_ns.fields.object_box import ObjectBox
from dietnerf_ns.models.scene import BLENDER_PLANES, SceneSetup
from dietnerf_ns.utils.errors import UserError

Planes = tuple[float, float]
"""Distances of the near and the far plane from a camera along a ray, in scene units."""
WHOLE_OBJECT = 1.25
"""Planes must leave room for the ellipsoid that touches a box's sides from inside, enlarged by this. Boxes are larger
than objects, so that planes may cut corners off."""
MIDDLE = 0.5
"""Planes that cut into the ellipsoid reduced by this cut into the object."""
NEAR, FAR = 0.5, 1.5
"""Planes in units of the cameras' distance from a box's centre; 2 and 6 for the cameras of NeRF-Synthetic scenes."""


def agreed_planes(given: Planes, scene: SceneSetup, capture: Capture, *, is_blender_data: bool) -> Planes:
    """The planes that are used: those that are set, or planes that fit, in a scene with another unit of length.

    Args:
        given: the planes that are set.
        scene: how the scene is modelled.
        capture: the photos, which have been opened.
        is_blender_data: whether space is bounded by nerfstudio's box of NeRF-Synthetic scenes.

    Raises:
        UserError: no photo shows anything of the object between the planes.
    """
    box = scene.object_box
    if box is None:
        return given
    is_preset = given == BLENDER_PLANES and is_blender_data
    planes = planes_around(box, capture.cameras, given) if scene.is_bounded and is_preset else given
    if planes != given:
        CONSOLE.print(
            f"[yellow]Near plane {planes[0]:.3g} and far plane {planes[1]:.3g}, from the cameras: the object does not "
            f"lie between {given[0]:g} and {given[1]:g}. The scene has another unit of length.[/yellow]"
        )
    elif not is_preset:
        check_planes(box, capture.cameras, given, is_fitted=scene.has_silhouettes)
    return planes


def agreed_background(color: str, capture: Capture, *, is_given: bool) -> Float[Tensor, "3"] | None:
    """The photos' background if the colour that is set is not theirs, RGB in [0, 1]; None to leave what is set.

    Args:
        color: a setting of nerfstudio's models.
        capture: the photos of a scene without anything behind the object.
        is_given: whether a user has set it; says so if it is not used.
    """
    if not capture.photos_opened:
        return None
    if is_given:
        if is_photos_background(color, capture):
            return None
        CONSOLE.print(f"[yellow]{background_of_photos(color, capture)} and is used. {TRANSPARENCY_HINT}[/yellow]")
    return capture.background


def planes_around(box: ObjectBox, cameras: Cameras, planes: Planes) -> Planes:
    """The same planes if the object in a box lies between them in all photos, or planes between which it does.

    Args:
        box: around the object, in the world frame.
        cameras: of the photos.
        planes: customary ones.
    """
    distances, ellipsoid, _ = _seen_from(box, cameras)
    near, far = distances - WHOLE_OBJECT * ellipsoid, distances + WHOLE_OBJECT * ellipsoid
    if planes[0] <= float(near.min()) and planes[1] >= float(far.max()):
        return planes
    nearest, farthest = float((NEAR * distances).min()), float((FAR * distances).max())
    return max(min(nearest, float(near.min())), 0.05 * nearest), max(farthest, float(far.max()))


def check_planes(
    box: ObjectBox,
    cameras: Cameras,
    planes: Planes,
    *,
    is_fitted: bool,
    flags: str = "--pipeline.model.near-plane {:g} and far-plane {:g}",
) -> None:
    """Refuse planes that leave a box outside in all photos, and say if they cut into an object.

    Args:
        box: around the object, in the world frame.
        cameras: of the photos.
        planes: that were given.
        is_fitted: whether the box was fitted to silhouettes; others are much larger than what is in them.
        flags: how the planes are typed, with two places for them.

    Raises:
        UserError: no photo shows anything of the box between the planes.
    """
    distances, ellipsoid, reach = _seen_from(box, cameras)
    near, far = planes
    where = f"the cameras are {_range(distances)} from the middle of what they look at"
    way_out = "Choose planes around it, or leave them out."
    if bool(((near >= distances + reach) | (far <= distances - reach)).all()):
        raise UserError(
            f"{flags.format(near, far)}: nothing of what the photos show lies between these planes: {where}. {way_out}"
        )
    cut = (near > distances - MIDDLE * ellipsoid) | (far < distances + MIDDLE * ellipsoid)
    if is_fitted and bool(cut.any()):
        CONSOLE.print(
            f"[yellow]Near plane {near:g} and far plane {far:g} cut through the object in {int(cut.sum())} of "
            f"{len(cut)} photos: {where}. {way_out}[/yellow]"
        )


def _seen_from(box: ObjectBox, cameras: Cameras) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """For each camera, its distance from a box's centre, and how far towards it an ellipsoid and the box reach."""
    to_camera = cameras.camera_to_worlds[:, :, 3].detach().cpu() - box.center
    distances = to_camera.norm(dim=-1)
    halves = box.half_sizes * box.local(to_camera / distances[:, None].clamp_min(1e-9))
    return distances, halves.norm(dim=-1), halves.abs().sum(dim=-1)


def _range(distances: Float[Tensor, "n"]) -> str:
    low, high = f"{float(distances.min()):.3g}", f"{float(distances.max()):.3g}"
    return low if low == high else f"{low} to {high}"


def is_photos_background(color: str | Float[Tensor, "3"], capture: Capture) -> bool:
    """Whether a background colour is one that the photos can have, as far as this is known.

    Args:
        color: a setting of nerfstudio's models, or RGB in [0, 1].
        capture: the training views.
    """
    if capture.background is None or capture.is_transparent:
        return True
    rgb = COLORS_DICT.get(color) if isinstance(color, str) else color
    return rgb is not None and bool(((rgb.cpu() - capture.background).abs() <= TOLERANCE).all())


def background_of_photos(color: str, capture: Capture) -> str:
    """One line that says that a background colour is not the photos'.

    Args:
        color: the setting.
        capture: the training views, which have a uniform background.
    """
    assert capture.background is not None
    rgb = ", ".join(f"{value:.2f}" for value in capture.background.tolist())
    return f"--pipeline.model.background-color {color} is not the photos' background, which is RGB ({rgb})"


TRANSPARENCY_HINT = "Only transparent photos can have another one; blender-data puts them on its own `--alpha-color`."
