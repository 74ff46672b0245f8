"""Runs a cell in its own process: nerfstudio's training, nerfstudio's evaluation, and the result file.

    python -m dietnerf_ns.bench.train_cell cells/ID

The process runs in the results folder. The result file is written only when everything is done.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import tyro
from jaxtyping import Float
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.scripts import train as ns_train
from nerfstudio.utils import writer
from PIL import Image
from torch import Tensor

from dietnerf_ns.bench.cell import DEGREES, RESULT, SPECIFICATION, Cell
from dietnerf_ns.bench.curves import read_curves
from dietnerf_ns.bench.machine import describe_machine
from dietnerf_ns.bench.metrics import (
    image_metrics,
    mean,
    model_metrics_and_images,
    nerfstudio_metrics,
    only_finite,
    to_uint8,
)
from dietnerf_ns.bench.processes import peak_memory_mib
from dietnerf_ns.data.dataparsers import checked
from dietnerf_ns.geometry.cameras import viewing_directions
from dietnerf_ns.models.metrics import LazyLPIPS
from dietnerf_ns.utils.compat import lpips_replaced_by, replaced
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import write_json
from dietnerf_ns.utils.saved_runs import load_pipeline

MIB = 2**20


def main(folder: Path) -> None:
    """Train and evaluate the cell that `folder/cell.json` describes, and write `folder/result.json`."""
    cell = Cell(**json.loads((folder / SPECIFICATION).read_text()))
    training = train(cell)
    evaluation = evaluate(cell, folder)
    curves = read_curves(cell.config_file.parent)
    write_json(folder / RESULT, evaluation | {"training": training, "curves": curves, "machine": describe_machine()})


def train(cell: Cell) -> dict[str, float]:
    """Train as `ns-train` does, but not longer than the cell's `seconds`.

    Returns:
        The cost: `seconds`, `steps` and `steps_per_second` of the training loop, `peak_memory_mib` of the process, and
        on a GPU `peak_gpu_memory_mib` that torch allocated. If the cell's time is limited, also `step_seconds`, the
        time of the steps alone, and `configured_steps`, the number at which training ends without a limit.

    Raises:
        UserError: a setting lets the run read another configuration, or write outside of the cell's folder; or frames
            for validation are asked for, and the data have none.
    """
    config: TrainerConfig = tyro.cli(AnnotatedBaseConfigUnion, prog="ns-train", args=arguments_here(cell))
    check_files(config, cell)
    if cell.split == "val":
        check_validation(config)
    clock = TrainingClock()
    writer.EVENT_WRITERS.append(clock)
    limit = None if cell.seconds is None else TimeLimit(cell.seconds)
    # nerfstudio's models load LPIPS's backbone, a download, when they are built. Training evaluates no images with it.
    with lpips_replaced_by(LazyLPIPS), limited_by(limit):
        ns_train.main(config)
    steps = config.max_num_iterations if limit is None else limit.steps
    cost = {"seconds": clock.seconds, "steps": steps, "steps_per_second": steps / clock.seconds}
    if limit is not None:
        cost |= {"step_seconds": limit.step_seconds, "configured_steps": config.max_num_iterations}
    cost["peak_memory_mib"] = peak_memory_mib()
    if torch.cuda.is_available():
        cost["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() / MIB
    return cost


def arguments_here(cell: Cell) -> list[str]:
    """The arguments of `ns-train` with this machine's device. The cell may have been planned on another machine."""
    method, *settings = cell.train_arguments
    return [method, "--machine.device-type", "cuda" if torch.cuda.is_available() else "cpu", *settings]


def check_files(config: TrainerConfig, cell: Cell) -> None:
    """Refuse a configuration whose files are not those of the cell. Its settings come from an experiment file.

    Raises:
        UserError: the configuration is replaced by a file, which nerfstudio executes, or something is written outside
            of the cell's folder.
    """
    if config.load_config is not None:
        raise UserError(f"load-config {config.load_config}: a cell has the settings of its experiment and no others.")
    folder = cell.folder.resolve()
    run = config.get_base_dir()
    for setting, path in (
        ("relative-model-dir", config.get_checkpoint_dir()),
        ("logging.relative-log-dir", run / config.logging.relative_log_dir),
        ("viewer.relative-log-filename", run / config.viewer.relative_log_filename),
    ):
        if not path.resolve().is_relative_to(folder):
            raise UserError(f"{setting}: {path} is outside of the cell's folder {cell.folder}.")


def check_validation(config: TrainerConfig) -> None:
    """Refuse validation frames that are the test frames, as several of nerfstudio's dataparsers give them.

    Raises:
        UserError: both splits have the same photos.
    """
    datamanager: Any = config.pipeline.datamanager  # the base class does not declare what every image datamanager has
    parser = checked(replace(datamanager.dataparser, data=config.data)).setup()
    try:
        val, test = (parser.get_dataparser_outputs(split).image_filenames for split in ("val", "test"))
    except Exception:  # there is no test split, or training will say what is wrong
        return
    if val == test:
        raise UserError(
            "evaluate: val: this dataparser's validation frames are its test frames. With `views` or `resolution`, "
            "captures of nerfstudio-data are evaluated on training views that are not trained on."
        )


class TrainingClock(writer.Writer):
    """An event writer that keeps nerfstudio's own measurement of the training loop."""

    seconds = 0.0
    """Duration of the loop, with the evaluations in it and without the start of the program."""

    def write_scalar(self, name: str, scalar: float | Tensor, step: int) -> None:
        """Keep the total training time, which nerfstudio reports once at the end."""
        if name == writer.EventName.TOTAL_TRAIN_TIME.value:
            self.seconds = float(scalar)

    def write_scalar_dict(self, name: str, scalar_dict: dict[str, Any], step: int) -> None:
        """Ignored."""

    def write_image(self, name: str, image: Float[Tensor, "height width channels"], step: int) -> None:
        """Ignored."""

    def write_config(self, name: str, config_dict: dict[str, Any], step: int) -> None:
        """Ignored."""


class TimeLimit:
    """Ends a training when its steps have taken some wall-clock time. Evaluations between the steps do not count.

    Schedules do not know of the limit: they depend on the steps that are configured.

    Args:
        seconds: the time; the step that exceeds it is the last one.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.steps = 0
        """Number of steps that were done."""
        self.step_seconds = 0.0
        """Time that they took."""
        self._started = 0.0
        self._last_step = 0

    def watch(self, trainer: Trainer) -> None:
        """Measure the steps of a trainer, with all its other callbacks inside."""
        start = TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self._start_step)
        end = TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self._end_step, args=[trainer])
        trainer.callbacks = [start, *trainer.callbacks, end]
        # A trainer that is stopped saves the step that it would have done next. Models that change shape at this step
        # could not load the checkpoint.
        save = trainer.save_checkpoint
        trainer.save_checkpoint = lambda step: save(self._last_step)

    def _start_step(self, step: int) -> None:
        self._started = time.perf_counter()

    def _end_step(self, trainer: Trainer, step: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the GPU's part of a step may end after the CPU's
        self.steps += 1
        self._last_step = step
        self.step_seconds += time.perf_counter() - self._started
        if self.step_seconds >= self.seconds:
            trainer.stop_training = True


@contextlib.contextmanager
def limited_by(limit: TimeLimit | None) -> Iterator[None]:
    """Inside, trainers are limited from when they are set up. The run's configuration does not show it."""
    if limit is None:
        yield
        return
    set_up = Trainer.setup

    def set_up_and_watch(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        set_up(trainer, *args, **kwargs)
        limit.watch(trainer)

    with replaced(Trainer, "setup", set_up_and_watch):
        yield


def unique_names(photos: Sequence[Path]) -> list[str]:
    """A name for each photo's files: its own without the suffix, with a free number if several photos have the same."""
    stems = [photo.stem for photo in photos]
    uses = Counter(stems)
    taken = {stem for stem in stems if uses[stem] == 1}
    names = []
    for position, stem in enumerate(stems):
        numbered = (f"{stem}_{number}" for number in itertools.count(position))
        names.append(stem if uses[stem] == 1 else next(name for name in numbered if name not in taken))
        taken.add(names[-1])
    return names


@torch.no_grad()
def evaluate(cell: Cell, folder: Path) -> dict[str, Any]:
    """Compute the metrics of every evaluation image. Those of nerfstudio equal `ns-eval`'s.

    Renders and photos are written as PNG files.

    Args:
        cell: a trained cell.
        folder: folder in which `renders/` and `photos/` are made.

    Returns:
        `resolution`: width and height in pixels; `training_views`: number of photos trained on; `images`: metrics of
        each image and its angle to the nearest photo; `mean_colour`: of the evaluated photos on the model's background,
        in [0, 1]; `metrics`: their means; `left_out`: the metrics that could not be computed, with the reason.
    """
    with lpips_replaced_by(LazyLPIPS):
        pipeline = load_pipeline(cell.config_file, test_mode=cell.split)
    common_metrics = image_metrics(cell.similarity, pipeline.device)
    datamanager: Any = pipeline.datamanager  # the base class does not declare what every image datamanager has
    names = unique_names(datamanager.eval_dataset.image_filenames)
    photos = datamanager.train_dataset.cameras.camera_to_worlds
    images, colours, left_out, size = [], [], {}, None
    for camera, batch in datamanager.fixed_indices_eval_dataloader:
        outputs = pipeline.model.get_outputs_for_camera(camera)
        numbers, photo, render = model_metrics_and_images(pipeline.model, outputs, batch, int(camera.width))
        name, size = names[int(batch["image_idx"])], (render.shape[1], render.shape[0])
        scores = nerfstudio_metrics(numbers, pipeline.model, left_out)
        for metric in common_metrics:
            scores |= metric(photo, render, batch.get("mask"))
            left_out |= metric.left_out
        degrees = degrees_to_nearest(camera.camera_to_worlds, photos)
        colours.append(float(photo.mean()))
        images.append({"name": name, DEGREES: float(degrees)} | only_finite(scores, left_out))
        for kind, image in (("photos", photo), ("renders", render)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(to_uint8(image)).save(folder / kind / f"{name}.png")
    assert images, f"the split {cell.split} has no images"
    described = {"resolution": size, "training_views": len(photos), "images": images, "mean_colour": fmean(colours)}
    return described | {"metrics": mean(images, left_out), "left_out": left_out}


def degrees_to_nearest(evaluated: Float[Tensor, "n 3 4"], photos: Float[Tensor, "photos 3 4"]) -> Float[Tensor, "n"]:
    """Angle in degrees, in [0, 180], between each viewing direction and the nearest one of the training views.

    Args:
        evaluated: camera-to-world matrices of evaluated views, OpenGL axes.
        photos: those of the training views, in the same world.
    """
    ours, theirs = (viewing_directions(matrices.cpu().double()) for matrices in (evaluated, photos))
    return torch.rad2deg(torch.acos((ours @ theirs.T).clamp(-1, 1))).min(dim=1).values


if __name__ == "__main__":
    main(Path(sys.argv[1]))
