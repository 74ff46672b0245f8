"""FID and KID of a seed's renders of all scenes together against all images of the scenes, as in the paper.

FID depends on the number of images. Seeds are therefore not pooled: a published number is that of one run per scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch.utils.data import Dataset

from dietnerf_ns.bench.cell import Cell
from dietnerf_ns.bench.cells import short_hash
from dietnerf_ns.bench.experiment import BLENDER_PARSER, Experiment
from dietnerf_ns.bench.metrics import PAPER
from dietnerf_ns.bench.runner import is_finished
from dietnerf_ns.bench.scenes import SPLITS, SceneSplit, file_hash, find_scene, read_image
from dietnerf_ns.bench.summary import FID_KID, PooledFile, read_checked_json
from dietnerf_ns.utils.errors import UserError, in_one_line

FEATURES = "fidelity"
KID_SUBSET_SIZE = 200
BATCH_SIZE = 64
"""torch-fidelity's own. The networks reduce each image to their size, so that results do not depend on it."""


class ImagesOnWhite(Dataset):
    """Image files on a white background, as torch-fidelity reads them.

    Args:
        files: PNG files, RGB or RGBA, each with the width in pixels that it is reduced to; None keeps its own.
    """

    def __init__(self, files: Mapping[Path, int | None]):
        self.files = list(files.items())

    def __len__(self) -> int:
        return len(self.files)

    def of_one_size(self) -> bool:
        """Whether all files have the same width and height and are reduced alike, so that images fit into one batch."""
        sizes = set()
        for file, width in self.files:
            with Image.open(file) as image:
                sizes.add((image.size, width))
        return len(sizes) <= 1

    def __getitem__(self, index: int) -> UInt8[torch.Tensor, "3 height width"]:
        image = read_image(*self.files[index]).astype(np.float32)
        if image.shape[-1] == 4:
            alpha = image[..., 3:] / 255
            image = image[..., :3] * alpha + 255 * (1 - alpha)
        return torch.from_numpy(image.round().astype(np.uint8)).permute(2, 0, 1)


def fid_kid_of_methods(experiment: Experiment, cells: list[Cell], data: Path | None, out: Path) -> dict:
    """Compute FID and KID of every method, choice of views and seed over the finished cells of all scenes.

    The references are all images of the scenes in all splits. For scenes of other dataparsers than NeRF-Synthetic's the
    references are the evaluated photos. Metrics of the same renders that were computed earlier are kept if they cannot
    be computed now.

    Returns:
        `pools`: an entry per method, choice of views and seed with the cells' ids, the numbers of images, a hash of
        the renders (absent in older files) and the metrics; `left_out`: the metrics that could not be computed, with
        the reason.
    """
    finished = [cell for cell in cells if is_finished(cell, out)]
    earlier = {tuple(entry["cells"]): entry for entry in _earlier_pools(out)}
    entries, left_out = [], {}
    for place in dict.fromkeys(map(_pool_of, finished)):
        group = [cell for cell in finished if _pool_of(cell) == place]
        ids = [cell.id for cell in group]
        renders = ImagesOnWhite(dict.fromkeys(images_of(group, "renders", out)))
        photos = ImagesOnWhite(reference_files(experiment, group, data, out))
        content = short_hash([file_hash(file) for file, _ in renders.files])
        try:
            scores = fid_and_kid(renders, photos, out / FEATURES)
        except Exception as error:  # no network, no weights: a missing metric must not cost the run
            known = earlier.get(tuple(ids))
            if known is not None and _is_of(known, content, renders, out / FID_KID):
                entries.append(known)
            else:
                left_out = dict.fromkeys((f"{PAPER}/fid", f"{PAPER}/kid"), in_one_line(error))
            continue
        counts = {"cells": ids, "renders": len(renders), "references": len(photos), "content": content}
        entries.append(dict(zip(("views", "method", "seed"), place, strict=True)) | counts | scores)
    return {"pools": entries, "left_out": left_out}


def _pool_of(cell: Cell) -> tuple[str, str, int]:
    return cell.views, cell.method, cell.seed


def _is_of(known: dict[str, Any], content: str, renders: ImagesOnWhite, file: Path) -> bool:
    """Whether an entry of `file` is of these renders; without a hash, whether none was written after it."""
    if "content" in known:
        return known["content"] == content
    return all(render.stat().st_mtime <= file.stat().st_mtime for render, _ in renders.files)


def _earlier_pools(out: Path) -> list[dict[str, Any]]:
    """Those of an earlier report; none if its file is damaged."""
    try:
        return read_checked_json(out / FID_KID, PooledFile)["pools"]
    except (UserError, OSError):
        return []


def fid_and_kid(renders: ImagesOnWhite, photos: ImagesOnWhite, features: Path) -> dict[str, float]:
    """FID and KID (mean over subsets) with torch-fidelity's Inception network.

    Args:
        renders: the images that are evaluated.
        photos: the reference images.
        features: folder in which the references' features are kept for the next method.
    """
    from torch_fidelity import calculate_metrics

    scores = calculate_metrics(
        input1=renders,
        input2=photos,
        input2_cache_name=short_hash([(file_hash(file), width) for file, width in photos.files]),
        cache_root=str(features),
        cuda=torch.cuda.is_available(),
        fid=True,
        kid=True,
        kid_subset_size=min(KID_SUBSET_SIZE, len(renders), len(photos)),
        verbose=False,
        batch_size=BATCH_SIZE if renders.of_one_size() and photos.of_one_size() else 1,
    )
    return {
        f"{PAPER}/fid": scores["frechet_inception_distance"],
        f"{PAPER}/kid": scores["kernel_inception_distance_mean"],
    }


def images_of(cells: Iterable[Cell], kind: str, out: Path) -> list[Path]:
    """PNG files that the evaluation of the cells wrote.

    Args:
        cells: finished cells.
        kind: `renders` or `photos`.
        out: results folder.
    """
    return [path for cell in cells for path in sorted((out / cell.folder / kind).glob("*.png"))]


def reference_files(experiment: Experiment, group: list[Cell], data: Path | None, out: Path) -> dict[Path, int | None]:
    """The images that the renders of a group of cells are compared with, and the widths that they are reduced to.

    Evaluated photos have the size of the renders already.
    """
    files: dict[Path, int | None] = {}
    for scene in experiment.scenes:
        cells = [cell for cell in group if cell.scene == scene.name]
        if cells and scene.parser == BLENDER_PARSER:
            folder = find_scene(scene, data)
            images = [image for split in SPLITS for image in SceneSplit.read(folder, split).images]
            files |= dict.fromkeys(images, experiment.resolution)
        else:
            files |= dict.fromkeys(images_of(cells[:1], "photos", out))
    return files
