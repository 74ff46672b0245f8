"""FID and KID of the renders of all scenes together against all images of the scenes, as in the paper."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

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
from dietnerf_ns.utils.errors import in_one_line

FEATURES = "fidelity"
KID_SUBSET_SIZE = 200
BATCH_SIZE = 64
"""torch-fidelity's own. The networks reduce each image to their size, so that results do not depend on it."""


class ImagesOnWhite(Dataset):
    """Image files on a white background, as torch-fidelity reads them.

    Args:
        files: PNG files, RGB or RGBA.
        width: width in pixels that the images are reduced to; None keeps their own.
    """

    def __init__(self, files: list[Path], width: int | None):
        self.files, self.width = files, width

    def __len__(self) -> int:
        return len(self.files)

    def of_one_size(self) -> bool:
        """Whether all files have the same width and height, so that images fit into one batch."""
        sizes = set()
        for file in self.files:
            with Image.open(file) as image:
                sizes.add(image.size)
        return len(sizes) <= 1

    def __getitem__(self, index: int) -> UInt8[torch.Tensor, "3 height width"]:
        image = read_image(self.files[index], self.width).astype(np.float32)
        if image.shape[-1] == 4:
            alpha = image[..., 3:] / 255
            image = image[..., :3] * alpha + 255 * (1 - alpha)
        return torch.from_numpy(image.round().astype(np.uint8)).permute(2, 0, 1)


def fid_kid_of_methods(experiment: Experiment, cells: list[Cell], data: Path | None, out: Path) -> dict:
    """Compute FID and KID of every method and choice of views over the finished cells of all scenes and seeds.

    The references are all images of the scenes in all splits. For scenes of other dataparsers than NeRF-Synthetic's the
    references are the evaluated photos.

    Returns:
        `pools`: an entry per method and choice of views with the cells' ids, the numbers of images and the metrics;
        `left_out`: the metrics that could not be computed, with the reason.
    """
    finished = [cell for cell in cells if is_finished(cell, out)]
    entries = []
    for views, method in dict.fromkeys((cell.views, cell.method) for cell in finished):
        group = [cell for cell in finished if (cell.views, cell.method) == (views, method)]
        renders = ImagesOnWhite(images_of(group, "renders", out), width=None)
        photos = ImagesOnWhite(reference_files(experiment, group, data, out), experiment.resolution)
        try:
            scores = fid_and_kid(renders, photos, out / FEATURES)
        except Exception as error:  # no network, no weights: a missing metric must not cost the run
            reason = in_one_line(error)
            return {"pools": entries, "left_out": {f"{PAPER}/fid": reason, f"{PAPER}/kid": reason}}
        counts = {"cells": [cell.id for cell in group], "renders": len(renders), "references": len(photos)}
        entries.append({"views": views, "method": method} | counts | scores)
    return {"pools": entries, "left_out": {}}


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
        input2_cache_name=short_hash(list(map(file_hash, photos.files)), photos.width),
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


def reference_files(experiment: Experiment, group: list[Cell], data: Path | None, out: Path) -> list[Path]:
    """The images that the renders of a group of cells are compared with."""
    files: list[Path] = []
    for scene in experiment.scenes:
        cells = [cell for cell in group if cell.scene == scene.name]
        if cells and scene.parser == BLENDER_PARSER:
            folder = find_scene(scene, data)
            files += [image for split in SPLITS for image in SceneSplit.read(folder, split).images]
        else:
            files += images_of(cells[:1], "photos", out)
    return list(dict.fromkeys(files))
