"""A whole run as a user sees it: from the start of the program to the last evaluated view."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from PIL import Image

from dietnerf_ns.bench.cell import CELLS, RESULT
from dietnerf_ns.bench.cells import plan_cells
from dietnerf_ns.bench.experiment import BenchmarkScene, Experiment, Method, Views
from dietnerf_ns.bench.runner import LocalEngine, end_of_log, run_missing
from dietnerf_ns.bench.scenes import SceneSplit
from dietnerf_ns.bench.speed.candidate import Candidate, Data

REPORTED = {"psnr": "nerfstudio/psnr", "ssim": "nerfstudio/ssim"}


def whole_job(candidate: Candidate, data: Data, folder: Path) -> dict:
    """Run one cell as `dietnerf-bench run` does: nerfstudio's training and evaluation in a process of their own.

    Args:
        candidate: the method to run.
        data: the photos to train on.
        folder: results folder of the cell. Results of an earlier run in it are deleted.

    Returns:
        `seconds` of the process; `training`: seconds, steps and peak memory; `psnr` and `ssim` of the test views.
    """
    shutil.rmtree(folder / CELLS, ignore_errors=True)
    scene = _under_name_of_its_own(Path(data.folder), folder)
    with Image.open(SceneSplit.read(scene, "train").images[0]) as image:
        width = round(data.scale * image.width)
    experiment = Experiment(
        scenes=(BenchmarkScene(scene.name),),
        methods=(Method(candidate.method, candidate.label, candidate.overrides),),
        views=(Views(protocol=data.protocol),),
        resolution=width,
    )
    (cell,) = plan_cells(experiment, scene.parent, folder)
    started = time.perf_counter()
    if run_missing([cell], folder, LocalEngine(1)):
        raise RuntimeError(end_of_log(cell, folder))
    seconds = time.perf_counter() - started
    result = json.loads((folder / cell.folder / RESULT).read_text())
    scores = {name: result["metrics"][metric] for name, metric in REPORTED.items()}
    return {"label": candidate.label, "seconds": seconds, "training": result["training"]} | scores


def _under_name_of_its_own(scene: Path, folder: Path) -> Path:
    """A link to a scene's folder. The benchmark takes a scene called `tiny` for the shipped one, wherever it is."""
    link = folder / f"given-{scene.name}"
    link.unlink(missing_ok=True)
    link.symlink_to(scene.resolve(), target_is_directory=True)
    return link
