"""What was found, in words and in one picture: poses, photos left out, covered directions, what to photograph next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dietnerf_ns.geometry.cameras import cameras_surround_scene, direction_coverage
from dietnerf_ns.geometry.sphere import spherical_coordinates
from dietnerf_ns.poses.mapping import Attempt, uncertainties
from dietnerf_ns.poses.matching import Matches
from dietnerf_ns.poses.scene import PosedPhotos
from dietnerf_ns.utils.files import write_json

FILES = "files"
"""Key of the hashes of a scene's files in its numbers."""
WIDE_GAP_DEG = 60.0
"""Between neighbouring cameras around an object, above which a photo in between is recommended."""
DOUBTFUL_UNCERTAINTY = 0.1
"""Standard deviation of a focal length, relative to it. Poses of a statuette were up to 1.5 degrees wrong at 0.06 and
at 0.16, and 50 degrees at 0.23."""
NEIGHBOURS = 2
"""Photos that a message recommends to overlap with."""
MOST_POINTS_DRAWN = 20_000


@dataclass(frozen=True)
class LeftOut:
    """A photo without a pose, and why."""

    name: str
    reason: str


def summary(attempt: Attempt, posed: PosedPhotos, matches: Matches) -> str:
    """How many photos were posed, how exactly, and the focal lengths."""
    cameras = {image.camera_id: image.camera for image in posed.model.images.values() if image.has_pose}
    focal = ", ".join(f"{camera.focal_length / max(camera.width, camera.height):.3f}" for camera in cameras.values())
    return (
        f"Posed {len(posed.names)} of {len(matches.names)} photos: mean reprojection error {attempt.error:.2f} pixels, "
        f"{len(posed.model.points3D)} points, focal length {focal} of the longer side."
    )


def doubt(attempt: Attempt) -> str | None:
    """A word of warning if the photos hardly determine the focal length, and with it the poses."""
    used = {image.camera_id: image.camera for image in attempt.model.images.values() if image.has_pose}
    unknown = [key for key, camera in used.items() if not camera.has_prior_focal_length]
    largest = max((uncertainties(attempt.model, key)[0] for key in unknown), default=0.0)
    if largest <= DOUBTFUL_UNCERTAINTY:
        return None
    return (
        f"These poses can be wrong: the photos determine the focal length to {min(largest, 1):.0%} only. Add photos "
        "that overlap with these from other directions, or photos with the EXIF of the camera."
    )


def left_out(matches: Matches, posed: Sequence[str]) -> list[LeftOut]:
    """The photos without a pose, with the reason and what would help."""
    names = matches.names
    without = [name for name in names if name not in posed]
    reasons = []
    for name in without:
        counts = matches.counts[names.index(name)]
        best = sorted((other for other in posed), key=lambda other: (-counts[names.index(other)], other))[:NEIGHBOURS]
        most = int(counts.max(initial=0))
        found = f"at most {most} matches with any other photo" if most else "no matches with any other photo"
        nearest = best if counts[[names.index(other) for other in best]].any() else _neighbours(name, names, posed)
        reasons.append(LeftOut(name, f"{found}; overlap it more with {' and '.join(nearest)}"))
    return reasons


def _neighbours(name: str, names: Sequence[str], posed: Sequence[str]) -> list[str]:
    """The posed photos next to a photo by file name, which is mostly the order in which they were taken."""
    index = names.index(name)
    return sorted(posed, key=lambda other: abs(names.index(other) - index))[:NEIGHBOURS]


def advice(posed: PosedPhotos) -> str:
    """How well the photos cover directions, and what to photograph next."""
    poses = posed.camera_to_worlds
    covered = f"Direction coverage: {100 * direction_coverage(poses):.0f} %."
    if not cameras_surround_scene(poses):
        return f"{covered} The photos look at the scene from one side; from other sides it will be a guess."
    azimuths, elevations, _ = spherical_coordinates(poses, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    order = azimuths.argsort()
    gaps = torch.cat([azimuths[order], azimuths[order[:1]] + 360]).diff()
    widest = int(gaps.argmax())
    first, second = posed.names[int(order[widest])], posed.names[int(order[(widest + 1) % len(order)])]
    if gaps[widest] > WIDE_GAP_DEG:
        return f"{covered} Photograph next: between {first} and {second}, which are {gaps[widest]:.0f} degrees apart."
    if elevations.max() - elevations.min() < WIDE_GAP_DEG / 2:
        return f"{covered} Photograph next: from above or below; all photos are {elevations.mean():.0f} degrees up."
    return f"{covered} The largest gap is {gaps[widest]:.0f} degrees, between {first} and {second}."


def draw_report(path: Path, posed: PosedPhotos, matches: Matches) -> None:
    """Draw cameras and points from above and from the side, and the matrix of matches.

    Args:
        path: PNG file to write.
        posed: in the world frame of the scene.
        matches: of all photos.
    """
    points = np.stack([point.xyz for point in posed.model.points3D.values()])
    colours = np.stack([point.color for point in posed.model.points3D.values()]) / 255
    chosen = np.random.default_rng(0).permutation(len(points))[:MOST_POINTS_DRAWN]
    figure = Figure(figsize=(16, 5.6), layout="constrained")
    above, side, matrix = figure.subplots(1, 3)
    for axis, (horizontal, vertical), title in ((above, (0, 1), "from above"), (side, (0, 2), "from the front")):
        axis.scatter(points[chosen, horizontal], points[chosen, vertical], s=2, c=colours[chosen], linewidths=0)
        _draw_cameras(axis, posed, horizontal, vertical)
        axis.set(title=f"Cameras and points {title}", xlabel="xyz"[horizontal], ylabel="xyz"[vertical], aspect="equal")
    labels = [name if name in posed.names else f"{name} (left out)" for name in matches.names]
    _draw_matrix(matrix, matches.counts, labels)
    figure.savefig(path, dpi=100)


def _draw_cameras(axis: Axes, posed: PosedPhotos, horizontal: int, vertical: int) -> None:
    poses = posed.camera_to_worlds.numpy()
    positions, directions = poses[:, :, 3], -poses[:, :, 2]
    span = 1.3 * max(np.abs(positions).max(), 1)
    ends = positions + 0.15 * span * directions
    for name, start, end in zip(posed.names, positions, ends, strict=True):
        axis.plot([start[horizontal], end[horizontal]], [start[vertical], end[vertical]], color="tab:red", linewidth=1)
        axis.plot(start[horizontal], start[vertical], "s", color="tab:red", markersize=4)
        place = start[horizontal], start[vertical]
        axis.annotate(name, place, fontsize=7, xytext=(3, 3), textcoords="offset points", parse_math=False)
    axis.set(xlim=(-span, span), ylim=(-span, span))


def _draw_matrix(axis: Axes, counts: Int[np.ndarray, "n n"], labels: Sequence[str]) -> None:
    shades = np.log10(counts + 1)
    axis.imshow(shades, cmap="viridis")
    for (row, column), count in np.ndenumerate(counts):
        if len(labels) <= 16 and row != column:
            colour = "black" if shades[row, column] > 0.6 * shades.max() else "white"
            axis.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7, parse_math=False)
    axis.set_yticks(range(len(labels)), labels, fontsize=7, parse_math=False)
    axis.set_title("Verified matches between photos")


def write_report(
    path: Path,
    attempt: Attempt,
    posed: PosedPhotos,
    matches: Matches,
    without: Sequence[LeftOut],
    files: dict[str, str],
) -> None:
    """Write the numbers as JSON: what was posed how, reprojection errors in pixels, photos left out, matches.

    Args:
        path: of the file.
        attempt: that was taken.
        posed: photos with poses.
        matches: of all photos.
        without: photos that have no pose.
        files: the scene's other files with their hashes, by which later changes are noticed.
    """
    content = {
        "how": attempt.how,
        "posed": {name: {"reprojection_error": reprojection_error(posed, name)} for name in posed.names},
        "left_out": {photo.name: photo.reason for photo in without},
        "mean_reprojection_error": attempt.error,
        "num_points": len(posed.model.points3D),
        "matches": {"photos": matches.names, "verified": matches.counts.tolist()},
        FILES: files,
    }
    write_json(path, content)


def reprojection_error(posed: PosedPhotos, name: str) -> float:
    """Mean distance in pixels between the points that a photo sees and where its pose puts them."""
    image = posed.model.find_image_with_name(name)
    assert image is not None
    errors: list[np.floating] = []
    for point in image.get_observation_points2D():
        projected = image.project_point(posed.model.points3D[point.point3D_id].xyz)
        if projected is not None:
            errors.append(np.linalg.norm(projected - point.xy))
    return float(np.mean(errors))
