"""transforms.json and its relatives: checked, and completed where the meaning is plain, before they are used."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE, CameraType
from nerfstudio.data.dataparsers import blender_dataparser, instant_ngp_dataparser, nerfstudio_dataparser
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from dietnerf_ns.data.photos import HEIF_SUFFIXES, SUFFIXES, Size, photo_size, stored_size
from dietnerf_ns.utils.compat import replaced
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import composed

INTRINSICS = ("w", "h", "fl_x", "fl_y", "cx", "cy")
ANGLES = ("camera_angle_x", "camera_angle_y")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
DISTORTION_LIST = "distortion_params"
"""The same numbers in this order, or those of a FISHEYE624 lens."""
POSITIVE = ("w", "h", "fl_x", "fl_y", *ANGLES, "x_fov", "y_fov", "aabb_scale", "applied_scale", "fisheye_crop_radius")
NUMBERS = (*POSITIVE, "cx", "cy", *DISTORTION)
LENS = (*DISTORTION, DISTORTION_LIST, "is_fisheye", "camera_model")
IGNORED_BY_BLENDER = ("camera_angle_x", "fl_x", "fl_y", "cx", "cy", *LENS)
SAME_INTRINSICS = 0.01
"""Relative difference of focal lengths and principal points that does not show."""
SAME_SIZE = 2
"""Difference of photos' sides in pixels that rounding makes."""
SPLITS = ("train_filenames", "val_filenames", "test_filenames")
CONVERTED_SUFFIXES = (
    *SUFFIXES,
    *HEIF_SUFFIXES,
    ".avif",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
    ".orf",
    ".rw2",
)
"""Of photos that may have been converted after the cameras were computed; the dot of shot.1 begins none."""
PATHS = ("file_path", "mask_path", "depth_file_path", "ply_file_path")
ORIENTATIONS = ("pca", "up", "vertical", "none")
LARGEST_FOV = 140
"""In degrees. A wider perspective camera has a focal length in other units than pixels."""
LARGEST_ANGLE = 170
"""In degrees, where the file states the angle of view."""
LEAST_SPREAD = 1e-4
"""Distance between cameras relative to their coordinates. float32 has seven digits: below it, fewer than three are
left to tell the cameras apart."""
ONE_POSITION = 1e-9
"""Distance between cameras relative to their coordinates that is rounding error."""
SHEAR = 0.02
"""Largest deviation of a rotation's columns from equal lengths and right angles."""
Frame = dict[str, Any]


@contextlib.contextmanager
def checked_transforms() -> Iterator[None]:
    """Inside, nerfstudio's dataparsers read these files through `read_transforms`."""
    with contextlib.ExitStack() as stack:
        for module, complete in COMPLETIONS.items():
            stack.enter_context(replaced(module, "load_from_json", _reader(complete)))
        yield


def read_transforms(path: Path) -> dict[str, Any]:
    """Read a transforms file of blender-data, nerfstudio-data or instant-ngp-data.

    Keys that are null are taken for missing, numbers may be strings, paths may have backslashes, and poses may be 3x4
    or flat: all become what the dataparsers expect.

    Args:
        path: the JSON file.

    Returns:
        Its content. Every frame has a `file_path` and a `transform_matrix` of four rows of finite numbers, a proper
        camera-to-world matrix that may be scaled.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file cannot be read, or one of its values cannot be what it should be.
    """
    content = _json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: the file must contain an object with `frames`, not a {type(content).__name__}.")
    meta = _without_null(content)
    frames = meta.get("frames")
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{path}: `frames` must be a list with an entry for each photo.")
    _check_values(meta, str(path), path.parent)
    meta["frames"] = [_frame(frame, number, path) for number, frame in enumerate(frames)]
    _check_positions(meta["frames"], path)
    _set_camera_model(meta, path)
    _check_focal_lengths(meta, path)
    return meta


def _json(path: Path) -> Any:
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the file is not text in UTF-8 ({error.reason} at byte {error.start}).") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: no valid JSON at line {error.lineno}, column {error.colno}: {error.msg}. JSON has no comments, "
            "no comma after the last entry, and a whole file ends with a closing brace."
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise UserError(f"{path}: no valid JSON: {error}.") from error


def _without_null(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def _frame(frame: Any, number: int, path: Path) -> Frame:
    if not isinstance(frame, dict):
        raise UserError(f"{path}: frame {number} must be an object with `file_path` and `transform_matrix`.")
    frame = _without_null(frame)
    name = frame.get("file_path")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: frame {number} has no `file_path`, the path of its photo.")
    where = f"{path}: frame {name}"
    if "transform_matrix" not in frame:
        raise UserError(f"{where} has no `transform_matrix`, the pose of its camera. Take out frames without a pose.")
    _check_values(frame, where, path.parent)
    frame["transform_matrix"] = _pose(frame["transform_matrix"], where)
    return frame


def _check_values(entry: dict[str, Any], where: str, folder: Path) -> None:
    """Check an object's numbers and paths, and convert them in place."""
    for key in NUMBERS:
        if key in entry:
            entry[key] = _number(entry[key], key, where)
    for key in PATHS:
        if key in entry:
            entry[key] = _path(entry[key], key, where, folder)
    if DISTORTION_LIST in entry:
        entry[DISTORTION_LIST] = _numbers(entry[DISTORTION_LIST], DISTORTION_LIST, where, [(6,), (12,)]).tolist()
    if "applied_transform" in entry:
        matrix = _numbers(entry["applied_transform"], "applied_transform", where, [(3, 4), (4, 4)])
        entry["applied_transform"] = matrix[:3].tolist()
    for key in SPLITS:
        if key in entry:
            if not isinstance(entry[key], list):
                raise UserError(f"{where}: {key} must be a list of the photos' paths.")
            entry[key] = [_path(name, key, where, folder) for name in entry[key]]
    if entry.get("orientation_override", ORIENTATIONS[0]) not in ORIENTATIONS:
        raise UserError(f"{where}: orientation_override must be one of {', '.join(ORIENTATIONS)}.")


def _number(value: Any, key: str, where: str) -> float | int:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: {key} must be a number, not {value!r}.") from None
    if isinstance(value, bool) or not math.isfinite(number) or (key in POSITIVE and number <= 0):
        raise UserError(f"{where}: {key} is {value}; it must be a finite number{' above 0' * (key in POSITIVE)}.")
    return round(number) if key in ("w", "h") and number >= 1 else number


def _path(value: Any, key: str, where: str, folder: Path) -> str:
    """The path with slashes and, if no such file exists but exactly one with another suffix, with that suffix."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise UserError(f"{where}: {key} must be the path of a file, not {value!r}.")
    try:
        return value if (folder / value).is_file() else _portable(Path(value.replace("\\", "/")), folder).as_posix()
    except (OSError, ValueError) as error:  # too long, or characters that no file name has
        raise UserError(f"{where}: {key} {value[:80]!r} is no path of a file: {error}.") from error


def _portable(path: Path, folder: Path) -> Path:
    if (folder / path).is_file():
        return path
    stems = (path.name, path.stem) if path.suffix.lower() in CONVERTED_SUFFIXES else (path.name,)
    name, stems = composed(path.name), tuple(composed(stem) for stem in stems)
    others = [(file, composed(file.name), composed(file.stem)) for file in (folder / path).parent.glob("*.*")]
    alike = [file for file, full, stem in others if full == name] or [f for f, _, stem in others if stem in stems]
    images = [file for file in alike if file.suffix.lower() in SUFFIXES]
    return path.with_name(images[0].name) if len(images) == 1 else path


def _numbers(value: Any, key: str, where: str, shapes: list[tuple[int, ...]]) -> np.ndarray:
    allowed = " or ".join("x".join(map(str, shape)) for shape in shapes)
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.zeros(0)
    if numbers.shape not in shapes:
        raise UserError(f"{where}: {key} must be {allowed} numbers.")
    if not np.isfinite(numbers).all():
        raise UserError(f"{where}: {key} has a number that is not finite.")
    return numbers


def _pose(value: Any, where: str) -> list[list[float]]:
    shapes = [(4, 4), (3, 4), (16,), (12,)]
    matrix = _numbers(value, "transform_matrix", where, shapes).reshape(-1, 4)
    if len(matrix) == 3:
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    problem = _problem_of(matrix)
    if problem:
        raise UserError(f"{where}: transform_matrix {problem}")
    return matrix.tolist()


def _problem_of(pose: np.ndarray) -> str | None:
    """What keeps a 4x4 matrix from being a camera-to-world matrix, as the rest of a sentence."""
    if not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-4):
        is_transposed = np.allclose(pose[:, 3], [0, 0, 0, 1], atol=1e-4)
        reason = "is transposed: its translation stands in the last row. Exchange rows and columns."
        return reason if is_transposed else f"must end with the row 0 0 0 1, not {' '.join(f'{v:g}' for v in pose[3])}."
    rotation = pose[:3, :3]
    lengths = np.linalg.norm(rotation, axis=0)
    if (lengths < 1e-9).any() or abs(np.linalg.det(rotation / lengths)) < 1e-3:
        return "has no rotation in its first three columns (they do not span space)."
    if np.ptp(lengths) > SHEAR * lengths.max():
        return f"stretches: its first three columns have the lengths {', '.join(f'{v:.3g}' for v in lengths)}."
    axes = rotation / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR:
        return "shears: its first three columns are not perpendicular to each other."
    if np.linalg.det(rotation) < 0:
        return (
            "mirrors (determinant below 0), which no camera does. Negate one column of every rotation: the one that "
            "your tool defines the other way round than OpenGL (x right, y up, z backwards)."
        )
    return None


def _check_focal_lengths(meta: dict[str, Any], path: Path) -> None:
    """Refuse focal lengths and angles in other units than pixels and radians."""
    is_perspective = CAMERA_MODEL_TO_TYPE[meta.get("camera_model", "PINHOLE")] is CameraType.PERSPECTIVE
    for entry in (meta, *meta["frames"]):
        known = {key: entry.get(key, meta.get(key)) for key in POSITIVE}
        where = f"{path}: frame {entry['file_path']}" if "file_path" in entry else str(path)
        for angle in ANGLES:
            if (known[angle] or 0) >= math.pi:
                raise UserError(f"{where}: {angle} is {known[angle]:g}; it must be in radians and below pi.")
        largest = LARGEST_ANGLE if _follows_from_an_angle(known) else LARGEST_FOV
        for focal, size in (("fl_x", "w"), ("fl_y", "h")):
            length, pixels = known[focal], known[size]
            if not is_perspective or meta.get("is_fisheye") or length is None or pixels is None:
                continue
            if 2 * math.atan(0.5 * pixels / length) > math.radians(largest):
                raise UserError(
                    f"{where}: {focal} is {length:g} for {size} {pixels}, a view of over {largest} degrees. "
                    "Intrinsics must be in pixels: multiply normalised ones by the size of the photos, and those in "
                    "millimetres by its ratio to the size of the sensor."
                )


def _follows_from_an_angle(known: dict[str, Any]) -> bool:
    """Whether an angle of view is stated, and no focal length of the same axis says otherwise."""
    for focal, size, angle in (("fl_x", "w", ANGLES[0]), ("fl_y", "h", ANGLES[1])):
        if known[angle] is not None and known[size] is not None:
            length = 0.5 * known[size] / math.tan(0.5 * known[angle])
            return known[focal] is None or abs(known[focal] - length) <= SAME_INTRINSICS * length
    return False


def _check_positions(frames: list[Frame], path: Path) -> None:
    positions = np.array([frame["transform_matrix"] for frame in frames])[:, :3, 3]
    spread, largest = np.ptp(positions, axis=0).max(), np.abs(positions).max()
    if ONE_POSITION * largest < spread < LEAST_SPREAD * largest and largest > 1:
        raise UserError(
            f"{path}: the cameras are within {spread:.3g} units of each other at coordinates of up to {largest:.3g}, "
            "where float32 cannot tell them apart. Subtract the same offset, such as their mean, from all positions."
        )


def _set_camera_model(meta: dict[str, Any], path: Path) -> None:
    """nerfstudio reads one camera model, at the top of the file: put it there if all frames have the same."""
    models = {str(frame["camera_model"]).upper() for frame in meta["frames"] if "camera_model" in frame}
    if "camera_model" in meta:
        models = {str(meta["camera_model"]).upper()} | models
    if len(models) > 1:
        raise UserError(f"{path}: the frames have several camera models ({', '.join(sorted(models))}); use one.")
    for model in models:
        if model not in CAMERA_MODEL_TO_TYPE:
            raise UserError(f"{path}: camera_model {model} is not one of {', '.join(CAMERA_MODEL_TO_TYPE)}.")
        meta["camera_model"] = model


def _complete_ngp(meta: dict[str, Any], path: Path) -> None:
    """instant-ngp-data: one set of intrinsics for all photos; its dataparser takes fl_y only beside both other keys.

    What only nerfstudio-data reads is written as instant-ngp-data reads it.
    """
    keys = (*INTRINSICS, *DISTORTION, DISTORTION_LIST)
    differ = any(key in frame and frame[key] != meta.get(key) for frame in meta["frames"] for key in keys)
    if differ or not any(key in meta for key in ("fl_x", "x_fov", "camera_angle_x")):
        raise UserError(
            f"{path}: instant-ngp-data needs camera_angle_x, x_fov or fl_x at the top of the file, the same for all "
            "frames. If the frames have intrinsics of their own, put nerfstudio-data at the end of the command."
        )
    if "fl_y" in meta:
        meta |= {key: meta.get(key) for key in ("camera_angle_y", "y_fov")}
    model, lens = meta.get("camera_model", "PINHOLE"), meta.get(DISTORTION_LIST, [])
    kind = CAMERA_MODEL_TO_TYPE[model]
    if kind not in (CameraType.PERSPECTIVE, CameraType.FISHEYE) or len(lens) > len(DISTORTION):
        raise UserError(f"{path}: instant-ngp-data has no camera_model {model}; end with nerfstudio-data.")
    meta |= dict(zip(DISTORTION, lens, strict=False)) | ({"is_fisheye": True} if kind is CameraType.FISHEYE else {})
    _check_focal_lengths(_size_of_first_photo(meta, path) | meta, path)
    with_mask = ["mask_path" in frame for frame in meta["frames"]]
    if any(with_mask) and not all(with_mask):
        without = meta["frames"][with_mask.index(False)]["file_path"]
        raise UserError(f"{path}: frame {without} has no mask_path, and others do; give all frames one, or none.")


def _size_of_first_photo(meta: dict[str, Any], path: Path) -> dict[str, int]:
    """Dataparsers open one photo to learn its size; without photos a run can still be rendered."""
    name = meta["frames"][0]["file_path"]
    for photo in (path.parent / name, path.parent / f"{name}.png"):
        if photo.is_file():
            return dict(zip(("w", "h"), stored_size(photo), strict=True))
    return {}


def _reader(complete: Callable[[dict[str, Any], Path], None]) -> Callable[[Path], dict[str, Any]]:
    def load_from_json(filename: Path) -> dict[str, Any]:
        meta = read_transforms(filename)
        complete(meta, filename)
        _size_of_first_photo(meta, filename)
        return meta

    return load_from_json


def _complete_intrinsics(meta: dict[str, Any], path: Path) -> None:
    """nerfstudio-data: sizes from the photos, focal lengths from angles of view, centred principal points."""
    if meta.get("is_fisheye"):  # what instant-ngp's tools write in place of the camera model
        meta.setdefault("camera_model", "OPENCV_FISHEYE")
    for frame in meta["frames"]:
        known = meta | frame
        if "w" not in known or "h" not in known:
            size = dict(zip(("w", "h"), _size_of_photo(path.parent / frame["file_path"], known), strict=True))
            frame |= {key: size[key] for key in size if key not in known}
    _place_principal_points(meta, path)
    _prefer_frames(meta)
    for frame in meta["frames"]:
        known = {key: meta[key] for key in NUMBERS if key in meta} | frame
        missing = [key for key in INTRINSICS if key not in known]
        if not missing:
            continue
        where = f"{path}: frame {frame['file_path']}"
        known.setdefault("cx", known["w"] / 2)
        known.setdefault("cy", known["h"] / 2)
        _complete_focal_lengths(known, where)
        frame.update({key: known[key] for key in missing})
    _check_focal_lengths(meta, path)


def _size_of_photo(photo: Path, known: dict[str, Any]) -> Size:
    """The upright photo's size, or the stored one's if the principal point is nearer to that one's centre."""
    upright = photo_size(photo)
    if "cx" not in known or "cy" not in known:
        return upright
    sizes = upright, stored_size(photo)
    return min(sizes, key=lambda size: math.hypot(known["cx"] - size[0] / 2, known["cy"] - size[1] / 2))


def _place_principal_points(meta: dict[str, Any], path: Path) -> None:
    """Give the centre to frames whose size is not that of the principal point at the top of the file.

    The latter is the size at the top, or of the first frame.

    Raises:
        UserError: it is not in the middle there.
    """
    of_top = meta["frames"][0] | {key: meta[key] for key in ("w", "h") if key in meta}
    for frame in meta["frames"]:
        known = meta | frame
        for centre, side in (("cx", "w"), ("cy", "h")):
            if centre in frame or centre not in meta or abs(known[side] - of_top[side]) <= SAME_SIZE:
                continue
            if abs(meta[centre] - of_top[side] / 2) > SAME_INTRINSICS * of_top[side]:
                raise UserError(
                    f"{path}: frame {frame['file_path']} has {side} {known[side]:g}, and {centre} {meta[centre]:g} at "
                    f"the top of the file is for {side} {of_top[side]:g}: give this frame a {centre} of its own."
                )
            frame[centre] = known[side] / 2


def _prefer_frames(meta: dict[str, Any]) -> None:
    """Move what frames have of their own out of the top of the file, which nerfstudio-data would take for all."""
    for group in (*((key,) for key in INTRINSICS), (*DISTORTION, DISTORTION_LIST)):
        common = {key: meta[key] for key in group if key in meta}
        if any(key in frame and frame[key] != meta.get(key) for frame in meta["frames"] for key in group):
            meta["frames"] = [_in_spelling_of(frame, common) | frame for frame in meta["frames"]]
            for key in common:
                del meta[key]


def _in_spelling_of(frame: Frame, common: dict[str, Any]) -> dict[str, Any]:
    """What a frame takes from the top of the file: no list of distortion beside single numbers, nor the reverse."""
    if DISTORTION_LIST in frame:
        return {key: value for key, value in common.items() if key not in DISTORTION}
    if any(key in frame for key in DISTORTION):
        of_list = dict(zip(DISTORTION, common.get(DISTORTION_LIST, []), strict=False))
        return of_list | {key: value for key, value in common.items() if key != DISTORTION_LIST}
    return common


def _complete_focal_lengths(known: dict[str, Any], where: str) -> None:
    for focal, angle, size in (("fl_x", "camera_angle_x", "w"), ("fl_y", "camera_angle_y", "h")):
        if focal not in known and angle in known:
            known[focal] = 0.5 * known[size] / math.tan(0.5 * known[angle])
    for focal, other in (("fl_x", "fl_y"), ("fl_y", "fl_x")):
        if focal not in known and other in known:
            known[focal] = known[other]
    if "fl_x" not in known:
        raise UserError(f"{where} has no fl_x, the focal length in pixels, and no camera_angle_x.")


def _check_blender(meta: dict[str, Any], path: Path) -> None:
    """blender-data: one angle of view for all photos, and PNG files that the file names without their suffix."""
    if "camera_angle_x" not in meta:
        raise UserError(
            f"{path} has no camera_angle_x, which blender-data needs. If it has fl_x, call it transforms.json and put "
            "nerfstudio-data at the end of the command."
        )
    for frame in meta["frames"]:
        name = Path(frame["file_path"])
        if name.suffix.lower() == ".png" != name.suffix:
            raise UserError(f"{path}: {name}: blender-data needs the suffix .png in small letters. Rename the photos.")
        if name.suffix.lower() in SUFFIXES and name.suffix != ".png":
            raise UserError(f"{path}: {name} is no PNG file, which blender-data needs. Convert the photos to PNG.")
        if ".." in name.parts:  # the dataparser would take "./" out of it
            name = (path.parent / name).parent.resolve() / name.name
        frame["file_path"] = name.with_suffix("").as_posix() if name.suffix == ".png" else name.as_posix()
    ignored = [key for key in IGNORED_BY_BLENDER if any(_differs(key, meta, frame) for frame in meta["frames"])]
    if ignored:
        CONSOLE.print(
            f"[yellow]{escape(str(path))}: blender-data ignores {', '.join(ignored)}: all its photos have the focal "
            "length of camera_angle_x at the top, a centred principal point and no distortion. To use what is there, "
            "call the file transforms.json and put nerfstudio-data at the end of the command.[/yellow]",
            soft_wrap=True,
        )


def _differs(key: str, meta: dict[str, Any], frame: dict[str, Any]) -> bool:
    """Whether a value that blender-data ignores says something else than what it takes in its place."""
    known = meta | frame
    value, width, height = known.get(key), known.get("w"), known.get("h")
    if key == "camera_model":
        return CAMERA_MODEL_TO_TYPE[meta.get(key, "PINHOLE")] is not CameraType.PERSPECTIVE
    if value is None or key in LENS:
        return any(value) if isinstance(value, list) else bool(value)
    if key == "camera_angle_x":
        taken = meta[key]
    elif key in ("cx", "cy"):
        size = width if key == "cx" else height
        taken = value if size is None else size / 2
    else:
        taken = value if width is None else 0.5 * width / math.tan(0.5 * meta["camera_angle_x"])
    return abs(value - taken) > SAME_INTRINSICS * abs(taken)


COMPLETIONS: dict[ModuleType, Callable[[dict[str, Any], Path], None]] = {
    blender_dataparser: _check_blender,
    instant_ngp_dataparser: _complete_ngp,
    nerfstudio_dataparser: _complete_intrinsics,
}
"""nerfstudio's dataparsers that read such files, each with `load_from_json` under its own name."""
