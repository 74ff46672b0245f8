"""Poses and points from matches: several attempts with limits for few photos, of which the best is kept."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from tqdm import tqdm

from dietnerf_ns.geometry.alignment import Poses, cameras_extent, pose_errors
from dietnerf_ns.poses.matching import Matches, set_unknown_focal_lengths
from dietnerf_ns.poses.support import leave_out_doubtful, support

FEWEST_PHOTOS = 3
FOCAL_LENGTHS = (0.85, 1.2, 1.7)
"""First guesses of unknown focal lengths, relative to the longer side: fields of view of 61, 45 and 33 degrees."""
FOCAL_LENGTH_LIMITS = (0.4, 4.0)
"""Focal lengths beyond which a reconstruction is wrong, relative to the longer side."""
INITIAL_PAIRS = 3
"""Pairs of photos from which mapping is begun, beside the pair that COLMAP chooses."""
FEWEST_INITIAL_MATCHES = 30
LEAST_INITIAL_ANGLE = 4.0
"""Between the rays of the first pair of photos, in degrees. COLMAP's default is 16."""
FEWEST_INLIERS = 20
"""Matches that connect two photos, and that give a further photo its pose. COLMAP's defaults are 15 and 30."""
LARGEST_UNCERTAINTY = 0.03
"""Standard deviation above which photos do not determine a focal length (relative to it) or a distortion."""
LARGEST_DISTORTION = 0.4
EXACT_PIXELS = 0.5
"""Scale of the Cauchy loss of reprojection errors."""
CONVERGED = 1e-6
"""Relative change of the robust error that ends a bundle adjustment. Without a limit it runs ten times longer, and the
poses of nine photos change by .002 degrees."""
LARGEST_ERRORS = (4.0, 2.0, 2.0)
"""Pixels, in the rounds of a bundle adjustment."""
LEAST_TRIANGULATION_ANGLE = 1.5
"""Degrees between the rays of a point; COLMAP's default."""
SAME_DEGREES, SAME_DISTANCE = 0.5, 0.02
"""Largest differences between the rotations, and between the positions (relative to the extent of the cameras), up to
which two attempts found the same poses."""
EQUALLY_GOOD = 0.99
"""Share of the most explained matches from which on the number of points decides between attempts."""


@dataclass(frozen=True)
class Attempt:
    """One reconstruction, and how it was made."""

    how: str
    model: pycolmap.Reconstruction

    @property
    def num_posed(self) -> int:
        """Number of photos with a pose."""
        return self.model.num_reg_images()

    @property
    def error(self) -> float:
        """Mean reprojection error in pixels."""
        return self.model.compute_mean_reprojection_error()


def best_reconstruction(matches: Matches, images: Path, folder: Path, seed: int) -> Attempt | None:
    """The best of several attempts: most photos posed, then most matches explained, then most points.

    No further attempts are made when two of them, from different beginnings, posed all photos at the same places. The
    mean reprojection error does not tell attempts apart: it is least for those that leave most points out.

    Args:
        matches: of all photos.
        images: folder of the photos.
        folder: for COLMAP's files; must exist.
        seed: of all random choices.

    Returns:
        The attempt after a last bundle adjustment, or None if no attempt posed at least three photos.
    """
    attempts: list[Attempt] = []
    for attempt in _attempts(matches, images, folder, seed):
        _adjust(attempt.model, focal_length=True, distortion=False)
        leave_out_doubtful(attempt.model, matches)
        if attempt.num_posed < FEWEST_PHOTOS:
            continue
        attempts.append(attempt)
        if attempt.num_posed == len(matches.names) and any(_agree(attempt, other) for other in attempts[:-1]):
            break
    if not attempts:
        return None
    best = _best(attempts, matches)
    refine_intrinsics(best.model, {camera.camera_id: camera.focal_length for camera in _known_cameras(matches)})
    return best


def _best(attempts: Sequence[Attempt], matches: Matches) -> Attempt:
    most = max(attempt.num_posed for attempt in attempts)
    fullest = [attempt for attempt in attempts if attempt.num_posed == most]
    explained = [support(attempt.model, matches).total for attempt in fullest]
    good = [a for a, count in zip(fullest, explained, strict=True) if count >= EQUALLY_GOOD * max(explained)]
    return max(good, key=lambda attempt: attempt.model.num_points3D())


def _agree(one: Attempt, other: Attempt) -> bool:
    """Whether two attempts posed the same photos at the same places."""
    poses, others = _poses(one.model), _poses(other.model)
    if poses.keys() != others.keys():
        return False
    angle, distance = pose_errors(poses, others)
    return angle <= SAME_DEGREES and distance <= SAME_DISTANCE * cameras_extent(others.values())


def _poses(model: pycolmap.Reconstruction) -> Poses:
    images = (image for image in model.images.values() if image.has_pose)
    return {image.name: image.cam_from_world().inverse().matrix() for image in images}


def _known_cameras(matches: Matches) -> list[pycolmap.Camera]:
    with pycolmap.Database.open(matches.database) as opened:
        return [camera for camera in opened.read_all_cameras() if camera.has_prior_focal_length]


@dataclass(frozen=True)
class _Way:
    """How to map."""

    guess: float | None = None
    """First guess of unknown focal lengths, relative to the longer side. None: as in the database."""
    holds_focal_length: bool = False
    pair: tuple[str, str] | None = None
    """The photos to begin with. None: COLMAP chooses."""
    is_global: bool = False

    def __str__(self) -> str:
        if self.is_global:
            return "global mapping"
        parts = ["incremental mapping"]
        parts += [] if self.pair is None else [f"begun with {self.pair[0]} and {self.pair[1]}"]
        parts += [] if self.guess is None else [f"focal length {self.guess:g} x the longer side at first"]
        parts += ["held until the last bundle adjustment"] if self.holds_focal_length else []
        return ", ".join(parts)


def _ways(matches: Matches) -> list[_Way]:
    """From the most to the least different ones, because mapping ends when two agree."""
    all_known = len(_known_cameras(matches)) == len(_all_cameras(matches))
    guesses = (None,) if all_known else FOCAL_LENGTHS
    middle, *others = guesses[len(guesses) // 2 :] + guesses[: len(guesses) // 2]
    ways = [_Way(middle), _Way(is_global=True), *(_Way(guess) for guess in others)]
    ways += [_Way(middle, pair=pair) for pair in _initial_pairs(matches)]
    return ways + [_Way(guess, holds_focal_length=True) for guess in guesses]


def _attempts(matches: Matches, images: Path, folder: Path, seed: int) -> Iterator[Attempt]:
    ways = _ways(matches)
    for number, way in enumerate(tqdm(ways, "Finding poses", unit="attempt", leave=False)):
        output = folder / str(number)
        output.mkdir()
        database = _with_guess(matches.database, output, way.guess)
        if way.is_global:
            models = _map_globally(matches, database, images, output, seed)
        else:
            models = _map_incrementally(way, matches, database, images, output, seed)
        shutil.rmtree(output)  # a copy of the database for each attempt would fill the disk
        yield from (Attempt(str(way), model) for model in models.values())


def _map_incrementally(
    way: _Way, matches: Matches, database: Path, images: Path, output: Path, seed: int
) -> dict[int, pycolmap.Reconstruction]:
    options = incremental_options(seed, refine_focal_length=not way.holds_focal_length)
    options.image_names = matches.names
    if way.pair is not None:
        options.init_image_id1, options.init_image_id2 = _identifiers(database, way.pair)
    return pycolmap.incremental_mapping(database, images, output, options=options)


def _map_globally(
    matches: Matches, database: Path, images: Path, output: Path, seed: int
) -> dict[int, pycolmap.Reconstruction]:
    pycolmap.calibrate_view_graph(database)
    options = global_options(seed)
    options.image_names = matches.names
    return pycolmap.global_mapping(database, images, output, options=options)


def _all_cameras(matches: Matches) -> list[pycolmap.Camera]:
    with pycolmap.Database.open(matches.database) as opened:
        return opened.read_all_cameras()


def _with_guess(database: Path, folder: Path, guess: float | None) -> Path:
    """A copy of a database with other first guesses of the unknown focal lengths, relative to the longer side."""
    copied = folder / "database.db"
    shutil.copy(database, copied)
    if guess is not None:
        set_unknown_focal_lengths(copied, guess)
    return copied


def _initial_pairs(matches: Matches) -> list[tuple[str, str]]:
    """The pairs with most matches, no photo twice: they begin in different parts of the scene."""
    order = np.argsort(matches.counts, axis=None, kind="stable")[::-1]
    pairs: list[tuple[str, str]] = []
    used: set[int] = set()
    for i, j in zip(*(axis.tolist() for axis in np.unravel_index(order, matches.counts.shape)), strict=True):
        if matches.counts[i, j] < FEWEST_INITIAL_MATCHES or len(pairs) == INITIAL_PAIRS:
            break
        if i < j and not {i, j} & used:
            pairs.append((matches.names[i], matches.names[j]))
            used |= {i, j}
    return pairs


def _identifiers(database: Path, names: Sequence[str]) -> list[int]:
    with pycolmap.Database.open(database) as opened:
        identifiers = {image.name: image.image_id for image in opened.read_all_images()}
    return [identifiers[name] for name in names]


def incremental_options(seed: int, *, refine_focal_length: bool) -> pycolmap.IncrementalPipelineOptions:
    """COLMAP's incremental mapping (Schönberger and Frahm, CVPR 2016) with limits for few photos.

    Distortion is refined at the end only: with few points it explains what are wrong poses.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = seed
    options.num_threads = options.mapper.num_threads = 1  # faster for so few photos, and repeatable
    options.multiple_models = False
    options.min_model_size = FEWEST_PHOTOS
    options.min_num_matches = FEWEST_INLIERS
    options.extract_colors = False
    options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = refine_focal_length
    options.ba_refine_extra_params = options.mapper.abs_pose_refine_extra_params = False
    options.min_focal_length_ratio, options.max_focal_length_ratio = FOCAL_LENGTH_LIMITS
    options.mapper.min_focal_length_ratio, options.mapper.max_focal_length_ratio = FOCAL_LENGTH_LIMITS
    options.mapper.init_min_num_inliers = FEWEST_INITIAL_MATCHES
    options.mapper.init_min_tri_angle = LEAST_INITIAL_ANGLE
    options.mapper.abs_pose_min_num_inliers = FEWEST_INLIERS
    options.triangulation.ignore_two_view_tracks = False  # with few photos, most points are in two of them
    return options


def global_options(seed: int) -> pycolmap.GlobalPipelineOptions:
    """COLMAP's global mapping (GLOMAP, Pan et al., ECCV 2024) with limits for few photos."""
    options = pycolmap.GlobalPipelineOptions()
    options.random_seed = seed
    options.num_threads = options.mapper.num_threads = 1
    options.multiple_models = False
    options.min_model_size = FEWEST_PHOTOS
    options.min_num_matches = FEWEST_INLIERS
    options.mapper.bundle_adjustment.refine_extra_params = False
    options.mapper.bundle_adjustment.ceres.solver_options.num_threads = 1
    options.mapper.retriangulation.ignore_two_view_tracks = False
    return options


def refine_intrinsics(model: pycolmap.Reconstruction, known: dict[int, float]) -> None:
    """Refine poses and points with the intrinsics that the photos determine.

    Args:
        model: after a bundle adjustment with focal lengths; is changed.
        known: focal lengths from EXIF in pixels by camera, to which those that are not determined return.
    """
    uncertain = [key for key in known if key in model.cameras and uncertainties(model, key)[0] > LARGEST_UNCERTAINTY]
    for key in uncertain:
        camera = model.cameras[key]
        camera.params = [known[key], *camera.params[1:]]
    _adjust(model, focal_length=not uncertain, distortion=False)
    with_distortion = pycolmap.Reconstruction(model)
    _adjust(with_distortion, focal_length=not uncertain, distortion=True)
    if all(_is_plausible(with_distortion, key) for key in with_distortion.cameras):
        _adjust(model, focal_length=not uncertain, distortion=True)


def _is_plausible(model: pycolmap.Reconstruction, key: int) -> bool:
    _, of_distortion = uncertainties(model, key)
    return of_distortion <= LARGEST_UNCERTAINTY and abs(float(model.cameras[key].params[-1])) <= LARGEST_DISTORTION


def _adjust(model: pycolmap.Reconstruction, *, focal_length: bool, distortion: bool) -> None:
    """Bundle adjustment with a robust loss; points that stay far from where a photo sees them are left out.

    On six photos of a room with known poses this halved the error of the positions.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length, options.refine_extra_params = focal_length, distortion
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = EXACT_PIXELS
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.function_tolerance = CONVERGED
    for largest_error in LARGEST_ERRORS:
        # pycolmap.bundle_adjustment does the same, and turns COLMAP's log on.
        pycolmap.create_default_bundle_adjuster(options, _all_photos(model), model).solve()
        pycolmap.ObservationManager(model).filter_all_points3D(largest_error, LEAST_TRIANGULATION_ANGLE)


def _all_photos(model: pycolmap.Reconstruction) -> pycolmap.BundleAdjustmentConfig:
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    return config


def uncertainties(model: pycolmap.Reconstruction, camera_id: int) -> tuple[float, float]:
    """Standard deviations of a camera's focal length, relative to it, and of its distortion.

    From the covariance of the bundle adjustment, for errors of one pixel in the photos. Infinite where the photos
    determine nothing.
    """
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(
        pycolmap.BundleAdjustmentOptions(), _all_photos(model), model
    )
    options = pycolmap.BACovarianceOptions()
    options.params = pycolmap.BACovarianceOptionsParams.ALL
    covariance = pycolmap.estimate_ba_covariance(options, model, adjuster)
    camera = model.cameras[camera_id]
    others = None if covariance is None else covariance.get_other_params_cov(camera.params)
    if others is None:
        return math.inf, math.inf
    deviations = np.sqrt(np.diag(others))
    return float(deviations[0]) / camera.focal_length, float(deviations[-1])
