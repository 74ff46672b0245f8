"""Sets of photos, one for each scene, and the embeddings of the photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.utils.rich_utils import get_progress
from torch import Tensor

from dietnerf_ns.data.dataparsers import checked
from dietnerf_ns.data.photos import HEIF_SUFFIXES, SUFFIXES, heif_and_large_photos, read_photo
from dietnerf_ns.semantic.encoders import ImageEncoder
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import readable

FEWEST_PHOTOS = 3


@dataclass(frozen=True)
class PhotoSet:
    """Photos of one scene."""

    name: str
    """The folder's name, or its whole path if another folder has the same name."""
    folder: Path
    photos: tuple[Path, ...]


def read_photo_sets(folders: Sequence[Path], max_images: int) -> list[PhotoSet]:
    """Find the photos in each folder.

    Args:
        folders: one folder for each scene. It holds transforms_train.json (read as blender-data, training split),
            transforms.json (read as nerfstudio-data: the training list if it has one, otherwise all images), or image
            files.
        max_images: largest number of photos from a folder; they are chosen evenly from its list.

    Raises:
        UserError: a folder does not exist, is given twice, cannot be read, or has fewer than three photos.
    """
    places = [folder.resolve() for folder in folders]
    twice = [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UserError(f"{' and '.join(twice)} are the same folder: compare different scenes.")
    names = Counter(place.name for place in places)
    photo_sets = []
    for folder, place in zip(folders, places, strict=True):
        photos = _photos_in(folder)
        if len(photos) < FEWEST_PHOTOS:
            raise UserError(f"{folder}: {len(photos)} photos; at least {FEWEST_PHOTOS} are needed to compare them.")
        name = place.name if names[place.name] == 1 else str(folder)
        photo_sets.append(PhotoSet(readable(name), folder, tuple(evenly_chosen(photos, max_images))))
    return photo_sets


def check_out(out: Path, photo_sets: Sequence[PhotoSet]) -> None:
    """Refuse a folder for the results in which plots would lie among photos, and be compared the next time.

    Raises:
        UserError: it is a scene's folder, or that of a photo.
    """
    place = out.resolve()
    for photo_set in photo_sets:
        folders = {photo_set.folder, *(photo.parent for photo in photo_set.photos)}
        if place in {folder.resolve() for folder in folders}:
            raise UserError(f"--out {out}: holds the photos of {photo_set.name}; name another folder.")


def evenly_chosen(items: Sequence[Path], count: int) -> list[Path]:
    """Choose at most `count` items at equal distances, including the first and the last."""
    kept = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in kept]


def _photos_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    if (folder / "transforms_train.json").exists():
        return _photos_of(BlenderDataParserConfig(data=folder))
    if (folder / "transforms.json").exists():
        return _photos_of(NerfstudioDataParserConfig(data=folder, eval_mode="all"))
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    photos = sorted(path for path in files if path.suffix.lower() in (*SUFFIXES, *HEIF_SUFFIXES))
    _check_heif([path.name for path in photos if path.suffix.lower() in HEIF_SUFFIXES], folder)
    return photos


def _check_heif(names: Sequence[str], folder: Path) -> None:
    if names and find_spec("pillow_heif") is None:
        raise UserError(
            f"{folder}: {', '.join(names)}: HEIC photos need the package pillow-heif: "
            'pip install "dietnerf-ns[heic]", or convert them to JPEG.'
        )


def _photos_of(dataparser: DataParserConfig) -> list[Path]:
    return list(checked(dataparser).setup().get_dataparser_outputs("train").image_filenames)


def load_photo(path: Path) -> Float[Tensor, "3 height width"]:
    """Load an image, of a phone as well, as RGB in [0, 1] and blend transparent pixels with white.

    Raises:
        UserError: the file cannot be read.
    """
    with heif_and_large_photos():
        photo = torch.from_numpy(read_photo(path)).permute(2, 0, 1) / 255  # 3 or 4 x height x width
    rgb, alpha = photo[:3], photo[3:]
    return rgb * alpha + (1 - alpha) if len(alpha) else rgb


@torch.no_grad()
def embed_photo_sets(
    encoder: ImageEncoder, photo_sets: Sequence[PhotoSet], device: torch.device
) -> Float[np.ndarray, "num_photos dim"]:
    """Embed all photos, set after set, and show a progress bar.

    Args:
        encoder: the image encoder phi.
        photo_sets: the photos to embed.
        device: the encoder's device.

    Returns:
        phi(photo) as unit vectors. `dim` is 512 for the projected embedding of CLIP ViT-B/32, 768 for its class token,
        and 1280 for the embedded encoder.
    """
    photos = [photo for photo_set in photo_sets for photo in photo_set.photos]
    embeddings = []
    with get_progress("Embedding photos", suffix="photos/s") as progress:
        for photo in progress.track(photos):
            image = load_photo(photo)[None].to(device)
            embeddings.append(encoder.embed(encoder.preprocess(image)).cpu())
    return torch.cat(embeddings).numpy()
