"""What runs in a cell's own process: nerfstudio's training, nerfstudio's evaluation, and the result file.

    python -m dietnerf_ns.bench.train_cell cells/ID

in the results folder. The result file appears when everything is done, or not at all.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.scripts.train import entrypoint
from nerfstudio.utils.eval_utils import eval_setup
from PIL import Image

from dietnerf_ns.bench.cell import RESULT, SPECIFICATION, Cell
from dietnerf_ns.bench.curves import read_curves
from dietnerf_ns.bench.machine import describe_machine
from dietnerf_ns.bench.metrics import image_metrics, mean, nerfstudio_metrics, photo_and_render, to_uint8
from dietnerf_ns.models.metrics import LazyLPIPS
from dietnerf_ns.utils.compat import lpips_replaced_by
from dietnerf_ns.utils.files import write_json

MIB = 2**20
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main(folder: Path) -> None:
    """Train and evaluate the cell that `folder/cell.json` describes; write `folder/result.json`."""
    cell = Cell(**json.loads((folder / SPECIFICATION).read_text()))
    training = train(cell)
    evaluation = evaluate(cell, folder)
    curves = read_curves(cell.config_file.parent)
    write_json(folder / RESULT, evaluation | {"training": training, "curves": curves, "machine": describe_machine()})


def train(cell: Cell) -> dict[str, float]:
    """Run nerfstudio's own ns-train in this process; return what it cost."""
    clock = TrainingClock()
    # Models of nerfstudio load LPIPS's backbone, a download, when they are built; it scores no image while training.
    with mock.patch.object(Trainer, "train", clock.timed(Trainer.train)), lpips_replaced_by(LazyLPIPS):
        with mock.patch.object(sys, "argv", ["ns-train", *arguments_here(cell)]):
            entrypoint()
    cost = {"seconds": clock.seconds, "steps": clock.steps, "steps_per_second": clock.steps / clock.seconds}
    cost["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT / MIB
    if torch.cuda.is_available():
        cost["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() / MIB
    return cost


def arguments_here(cell: Cell) -> list[str]:
    """The arguments of ns-train on this machine, which need not be the one that planned the cell."""
    method, *settings = cell.train_arguments
    return [method, "--machine.device-type", "cuda" if torch.cuda.is_available() else "cpu", *settings]


@dataclass
class TrainingClock:
    """Seconds and steps of a trainer's training loop, without the start of the program."""

    seconds: float = 0.0
    steps: int = 0

    def timed(self, train):
        """The same method, with the clock running."""

        def timed_train(trainer: Trainer) -> None:
            started = time.perf_counter()
            train(trainer)
            self.seconds = time.perf_counter() - started
            self.steps = trainer.config.max_num_iterations

        return timed_train


@torch.no_grad()
def evaluate(cell: Cell, folder: Path) -> dict:
    """Score every evaluation image; the first metrics equal ns-eval's. Renders and photos are written as PNG files.

    Args:
        cell: trained.
        folder: where `renders/` and `photos/` go.

    Returns:
        `resolution`: width and height in pixels; `images`: metrics of each image; `metrics`: their means; `left_out`:
        what could not be computed, and why.
    """
    with lpips_replaced_by(LazyLPIPS):
        _, pipeline, _, _ = eval_setup(cell.config_file, test_mode=cell.split)
    common_metrics = image_metrics(cell.similarity, pipeline.device)
    images, left_out = [], {}
    names = [path.stem for path in pipeline.datamanager.eval_dataset.image_filenames]
    for camera, batch in pipeline.datamanager.fixed_indices_eval_dataloader:
        outputs = pipeline.model.get_outputs_for_camera(camera)
        numbers, pictures = pipeline.model.get_image_metrics_and_images(outputs, batch)
        photo, render = photo_and_render(pictures["img"], int(camera.width))
        name = names[int(batch["image_idx"])]
        scores = nerfstudio_metrics(numbers, pipeline.model, left_out)
        for metric in common_metrics:
            scores |= metric(photo, render)
            left_out |= metric.left_out
        images.append({"name": name} | scores)
        for kind, image in (("photos", photo), ("renders", render)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(to_uint8(image)).save(folder / kind / f"{name}.png")
    size = (render.shape[1], render.shape[0])
    return {"resolution": size, "images": images, "metrics": mean(images, left_out), "left_out": left_out}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
