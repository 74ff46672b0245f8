"""From photos to poses: SIFT first, slower and learned features where photos stay without a pose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from dietnerf_ns.poses import learned
from dietnerf_ns.poses.mapping import FEWEST_PHOTOS, Attempt, best_reconstruction
from dietnerf_ns.poses.matching import Matches, match_photos
from dietnerf_ns.poses.photos import Photo
from dietnerf_ns.utils.errors import UserError

Found = tuple[Matches, Attempt]


def find_poses(
    photos: Sequence[Photo], images: Path, work: Path, *, masks: Path | None, separate_cameras: bool, seed: int
) -> Found:
    """Pose as many photos as possible.

    Args:
        photos: at least three; their names are those of files in `images`.
        images: folder of the upright photos.
        work: folder for databases and models; must exist.
        masks: folder with `NAME.png` for each photo; features where it is black are not used. None: no masks.
        separate_cameras: each photo has its own focal length.
        seed: of all random choices.

    Returns:
        Matches and reconstruction of the kind of features that posed most photos.

    Raises:
        UserError: fewer than three photos could be posed.
    """
    best: Found | None = None
    most_matches = 0
    for kind, matches in _matched(photos, images, work, masks=masks, separate_cameras=separate_cameras):
        most_matches = max(most_matches, int(matches.counts.max()))
        folder = work / kind
        folder.mkdir()
        attempt = best_reconstruction(matches, images, folder, seed)
        posed = 0 if attempt is None else attempt.num_posed
        CONSOLE.print(f"{kind}: {posed} of {len(photos)} photos posed.")
        if attempt is not None and (best is None or posed > best[1].num_posed):
            best = matches, attempt
        if posed == len(photos):
            break
    if best is None:
        raise UserError(_nothing_found(len(photos), most_matches))
    return best


def _matched(
    photos: Sequence[Photo], images: Path, work: Path, *, masks: Path | None, separate_cameras: bool
) -> Iterator[tuple[str, Matches]]:
    """Matches by kind of features, from fast to slow."""
    sift = match_photos(photos, images, work / "sift.db", masks=masks, separate_cameras=separate_cameras)
    yield "SIFT", sift
    if learned.is_available():
        yield "ALIKED + LightGlue", learned.add_learned_matches(sift, images, work / "learned.db", masks=masks)
        return
    CONSOLE.print(escape('`pip install "dietnerf-ns[learned]"` finds matches between photos that are further apart.'))
    yield (
        "affine SIFT",
        match_photos(photos, images, work / "affine.db", masks=masks, thorough=True, separate_cameras=separate_cameras),
    )


def _nothing_found(num_photos: int, most_matches: int) -> str:
    advice = (
        "Photograph with more overlap: neighbouring photos at most 20 to 30 degrees apart, each part of the scene in "
        f"at least {FEWEST_PHOTOS} of them, with a background or texture that stays where it is."
    )
    if most_matches == 0:
        return f"No two of the {num_photos} photos show the same points. {advice}"
    return (
        f"Fewer than {FEWEST_PHOTOS} of the {num_photos} photos could be posed; two photos have at most {most_matches} "
        f"matches. {advice}"
    )
