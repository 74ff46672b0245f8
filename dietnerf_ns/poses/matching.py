"""Features of photos and their matches, in a COLMAP database: which points of two photos show the same thing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Int
from tqdm import tqdm

from dietnerf_ns.poses.photos import Photo

CAMERA_MODEL = "SIMPLE_RADIAL"
"""One focal length, one coefficient of radial distortion, the principal point in the middle."""
FOCAL_LENGTH_OF_UNKNOWN = 1.2
"""First guess of a focal length, relative to the longer side; COLMAP's."""
FEWEST_MATCHES = 10
"""Verified matches between two photos, below which they are not connected. COLMAP's default is 15."""

LARGEST_ERROR = 0.0025
"""Distance of a match from its epipolar line, relative to the longer side: 4 pixels of 1600."""


@dataclass(frozen=True)
class Matches:
    """The database of all features and matches, and how many matches agree with the geometry of two views."""

    database: Path
    photos: Sequence[Photo]
    counts: Int[np.ndarray, "n n"]
    """Verified matches of each two photos, symmetric, 0 on the diagonal."""

    @property
    def names(self) -> list[str]:
        """The photos' names, in the order of `counts`."""
        return [photo.name for photo in self.photos]


def match_photos(
    photos: Sequence[Photo],
    images: Path,
    database: Path,
    *,
    masks: Path | None,
    thorough: bool = False,
    separate_cameras: bool = False,
) -> Matches:
    """Find SIFT features in all photos and match every two of them.

    Args:
        photos: their names are those of files in `images`.
        images: folder of the upright photos.
        database: file to write; must not exist.
        masks: folder with `NAME.png` for each photo; features where it is black are not used.
        thorough: slower features that survive larger changes of the view: affine shapes and domain-size pooling
            (Dong and Soatto, CVPR 2015).
        separate_cameras: each photo has its own focal length, also where EXIF or size say that it is one camera.
    """
    cameras = _write_cameras(photos, database, separate=separate_cameras)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.estimate_affine_shape = extraction.sift.domain_size_pooling = thorough
    reader = pycolmap.ImageReaderOptions()
    if masks is not None:
        reader.mask_path = masks
    for photo in tqdm(photos, "Finding features" + " (thorough)" * thorough, unit="photo"):
        reader.existing_camera_id = cameras[photo.name]
        pycolmap.extract_features(
            database,
            images,
            image_names=[photo.name],
            reader_options=reader,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
    _match_pairs(photos, database)
    return Matches(database, photos, verified_matches(database, [photo.name for photo in photos]))


def _write_cameras(photos: Sequence[Photo], database: Path, *, separate: bool) -> Mapping[str, int]:
    """Write one camera for each group of photos that share it; returns the camera of each photo by name."""
    identifiers: dict[str, int] = {}
    with pycolmap.Database.open(database) as opened:
        for photo in photos:
            key = photo.name if separate else photo.camera
            if key not in identifiers:
                identifiers[key] = opened.write_camera(initial_camera(photo))
    return {photo.name: identifiers[photo.name if separate else photo.camera] for photo in photos}


def initial_camera(photo: Photo) -> pycolmap.Camera:
    """The camera of a photo as far as it is known before any matching: from EXIF, or a guess."""
    width, height = photo.size
    known = photo.lens.focal_length
    focal = FOCAL_LENGTH_OF_UNKNOWN * max(photo.size) if known is None else known * float(np.hypot(width, height))
    camera = pycolmap.Camera.create_from_model_name(1, CAMERA_MODEL, focal, width, height)
    camera.has_prior_focal_length = known is not None
    return camera


def _match_pairs(photos: Sequence[Photo], database: Path) -> None:
    """Match each photo with all that come before it."""
    matching = pycolmap.FeatureMatchingOptions()
    matching.guided_matching = True
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = database.with_suffix(".pairs")
    names = [photo.name for photo in photos]
    for index in tqdm(range(1, len(names)), "Matching photos", unit="photo"):
        pairing.match_list_path.write_text("".join(f"{names[index]} {other}\n" for other in names[:index]))
        pycolmap.match_image_pairs(
            database,
            matching_options=matching,
            pairing_options=pairing,
            verification_options=verification_options(photos),
            device=pycolmap.Device.cpu,
        )


def verification_options(photos: Sequence[Photo]) -> pycolmap.TwoViewGeometryOptions:
    """How matches are checked against the geometry of two views.

    Errors count relative to the photos' size: COLMAP's four pixels are a wide band in a small photo. Matches at the
    same place in both photos are not used: they are a stamp, dirt on the lens, or a guess of learned matches.
    """
    longest = max(max(photo.size) for photo in photos)
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = FEWEST_MATCHES
    options.ransac.max_error = min(max(LARGEST_ERROR * longest, 1.0), 4.0)
    options.filter_stationary_matches = True
    options.stationary_matches_max_error = options.ransac.max_error
    return options


def verified_matches(database: Path, names: Sequence[str]) -> Int[np.ndarray, "n n"]:
    """Matches of each two photos that agree with the geometry of two views."""
    counts = np.zeros((len(names), len(names)), dtype=int)
    with pycolmap.Database.open(database) as opened:
        identifiers = {image.name: image.image_id for image in opened.read_all_images()}
        for (i, first), (j, second) in itertools.combinations(enumerate(names), 2):
            if first in identifiers and second in identifiers:
                geometry = opened.read_two_view_geometry(identifiers[first], identifiers[second])
                counts[i, j] = counts[j, i] = len(geometry.inlier_matches)
    return counts


def set_unknown_focal_lengths(database: Path, relative: float) -> None:
    """Set the first guess of the focal lengths that EXIF does not tell.

    Args:
        database: is changed.
        relative: to the longer side of the photos.
    """
    with pycolmap.Database.open(database) as opened:
        for camera in opened.read_all_cameras():
            if not camera.has_prior_focal_length:
                camera.params = [relative * max(camera.width, camera.height), *camera.params[1:]]
                opened.update_camera(camera)
