"""nerfstudio's trainer, without the ways in which it loses a training."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import comms, writer
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from dietnerf_ns.geometry.cameras import shorter_side
from dietnerf_ns.models.rasterized import RasterizedModel
from dietnerf_ns.training import atomic, saved
from dietnerf_ns.training.checkpoints import keep_settings, order_moments
from dietnerf_ns.training.interruption import Interruption, command_to_resume, status_of
from dietnerf_ns.training.nonfinite import BadSteps, all_finite, leave_out_bad_steps
from dietnerf_ns.training.optimizers import check_schedules, fitted_to_run
from dietnerf_ns.utils.compat import replaced, steps_of_run
from dietnerf_ns.utils.distributed import (
    average_scalars,
    errors_in_one_line,
    is_one_of_several,
    maximum,
    prepare_launcher,
    wait_for_all,
)
from dietnerf_ns.utils.ending import print_every_name
from dietnerf_ns.utils.errors import UserError, check_limits, flags_under, in_one_line, make_folder
from dietnerf_ns.utils.files import atomic_output

STEPS_PER_PIXEL = 12
FEWEST_STEPS, MOST_STEPS = 1200, 6000
SEEDS = 2**32
"""Number of seeds that NumPy takes, from 0. Each process of a run has the next one."""


@dataclass
class SafeTrainerConfig(TrainerConfig):
    """Configuration of a training that loses nothing: see `SafeTrainer`."""

    _target: type = field(default_factory=lambda: SafeTrainer)
    max_num_iterations: int | None = None  # type: ignore[assignment]
    """Number of training steps. The schedules of dietnerf, dietnerf-tiny and dietnerf-vanilla last as long. When not
    given: 12 for each pixel along the shorter side of the training images, at least 1200 and at most 6000."""
    chooses_checkpoint: ClassVar[bool] = True
    """Whether asking for the folder of checkpoints also chooses one in it, as everything but a trainer needs it."""

    def set_timestamp(self) -> None:
        """Called by ns-train before anything is loaded: impossible settings are refused here.

        Raises:
            UserError: for the first one.
        """
        print_every_name()
        self._check()
        super().set_timestamp()
        self._check_replaces_no_model()

    def _check(self) -> None:
        with flags_under("--"):
            steps = self.max_num_iterations
            check_limits(self, {"max_num_iterations": (steps is None or steps >= 1, "at least 1")})
        _check_machine(self.machine)
        check_schedules(self.optimizers)
        if self.load_dir is not None:
            saved.check_resumable(self.load_dir, self.load_step)
        elif self.load_checkpoint is not None:
            saved.check_checkpoint(self.load_checkpoint, "--load-checkpoint")

    def _check_replaces_no_model(self) -> None:
        """nerfstudio would delete the checkpoints of an earlier run in the same folder when it saves its own."""
        folder = super().get_checkpoint_dir()
        resumed = self.load_dir or (self.load_checkpoint and self.load_checkpoint.resolve().parent)
        try:
            steps = saved.steps_in(folder)
        except OSError:  # `save_config` will say so
            return
        if steps and (resumed is None or resumed.resolve() != folder.resolve()):
            raise UserError(
                f"--timestamp {self.timestamp}: {self.get_base_dir()} has a model already (step {steps[0]}), which "
                "would be deleted. Give another --timestamp, or none (with --load-config: write another one into the "
                f"file); go on with --load-dir {folder}; or delete the folder."
            )

    def save_config(self) -> None:
        """Write config.yml into the run's folder, completely or not at all.

        That of a folder with a model is kept until `SafeTrainer.setup` knows that the model fits the settings.

        Raises:
            UserError: the folder cannot be made or written to.
        """
        folder = self.get_base_dir()
        make_folder(folder, "--output-dir")
        has_model = bool(saved.steps_in(super().get_checkpoint_dir()))

        def write_text(path: Path, text: str, encoding: str | None = None) -> None:
            atomic.write_text(saved.next_config(path.parent) if has_model else path, text, encoding)

        try:
            saved.next_config(folder).unlink(missing_ok=True)  # of a run that was killed while it started
            with replaced(Path, "write_text", write_text):
                super().save_config()
        except OSError as error:
            raise UserError(f"--output-dir {folder}: cannot be written: {saved.reason_of(error)}.") from error

    def get_checkpoint_dir(self) -> Path:
        """The folder of checkpoints.

        nerfstudio's commands ask for it and then load the newest checkpoint in it, or `load_step` if there is one. It
        is set here to the newest one that can be read.

        Raises:
            UserError: none of the checkpoints can be read.
        """
        folder = super().get_checkpoint_dir()
        if self.chooses_checkpoint and saved.steps_in(folder):
            self.load_step = saved.newest_readable(folder)
        return folder


def _check_machine(machine: MachineConfig) -> None:
    processes = max(1, machine.num_devices * machine.num_machines)
    with flags_under("--machine."):
        check_limits(
            machine,
            {
                "num_devices": (machine.num_devices >= 1, "at least 1"),
                "num_machines": (machine.num_machines >= 1, "at least 1"),
                "seed": (0 <= machine.seed <= SEEDS - processes, f"at least 0 and at most {SEEDS - processes}"),
                "machine_rank": (
                    0 <= machine.machine_rank < machine.num_machines,
                    "at least 0 and below --machine.num-machines",
                ),
            },
        )
    _check_device(machine.device_type)
    if machine.num_devices * machine.num_machines > 1:
        _check_several_processes(machine)
        prepare_launcher()


def _check_several_processes(machine: MachineConfig) -> None:
    if machine.device_type != "cuda":
        raise UserError(
            f"--machine.num-devices {machine.num_devices} --machine.num-machines {machine.num_machines}: several "
            f"processes train on CUDA GPUs only; with --machine.device-type {machine.device_type} use 1 of each."
        )
    if machine.num_devices > torch.cuda.device_count():
        raise UserError(
            f"--machine.num-devices {machine.num_devices}: torch finds {torch.cuda.device_count()} CUDA GPUs here."
        )
    if machine.num_machines > 1 and machine.dist_url == "auto":
        raise UserError(
            "--machine.dist-url auto: several machines need an address that all of them reach; give "
            "tcp://HOST:PORT, with the host of machine rank 0 and a port that is free there."
        )


def _check_device(kind: str) -> None:
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if kind in available and not available[kind]():
        what = {"cuda": "CUDA GPU", "mps": "Apple GPU"}[kind]
        raise UserError(
            f"--machine.device-type {kind}: torch finds no {what} here; use --machine.device-type cpu, or install a "
            "driver and a torch that fits it."
        )


class SafeTrainer(Trainer):
    """nerfstudio's trainer with checkpoints that are complete or absent, and that ends well when it is interrupted.

    Checkpoints are written under another name, flushed to the disk and then renamed; older ones are deleted after that.
    If one cannot be written, training goes on. SIGINT and SIGTERM end training after the step, with a checkpoint and
    the signal's exit status. Steps whose gradients are not finite change nothing.

    Args:
        config: of the run.
        local_rank: of this process.
        world_size: number of processes; see `utils.distributed`.
    """

    config: SafeTrainerConfig

    def __init__(self, config: SafeTrainerConfig, local_rank: int = 0, world_size: int = 1):
        with replaced(type(config), "chooses_checkpoint", False):
            super().__init__(config, local_rank=local_rank, world_size=world_size)
        if is_one_of_several():
            CONSOLE.quiet = not comms.is_main_process()
            if self.config.machine.device_type == "cuda":
                torch.cuda.set_device(self.device)
        self.interruption = Interruption(self._stop)
        self.unsaved: str | None = None
        """Why the last checkpoint could not be saved; None if it was."""
        self._last_step: int | None = None
        self._saved_step: int | None = None
        """Step of the last checkpoint that this run has saved. Its folder may have later ones of an earlier run."""
        saved.remove_unfinished(self.checkpoint_dir)

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Build everything and load the checkpoint to resume from.

        Raises:
            UserError: the checkpoint does not fit, or an event writer cannot be started.
        """
        start_writers = replaced(writer, "setup_event_writer", self._start_event_writers)
        with errors_in_one_line(), self.interruption, start_writers, saved.config_replaced_at_end(self.base_dir):
            super().setup(test_mode)
        self._sizes_at_start = self._sizes_of_parameters()
        self._say_if_later_checkpoints_stay()

    def _say_if_later_checkpoints_stay(self) -> None:
        later = [step for step in saved.steps_in(self.checkpoint_dir) if step >= self._start_step]
        if later and not self.config.save_only_latest_checkpoint:
            CONSOLE.print(
                f"[yellow]{escape(str(self.checkpoint_dir))} has checkpoints of later steps, up to {later[0]}. Other "
                "commands take the latest one until this run has passed it: delete them, or give another --timestamp."
                "[/yellow]",
                soft_wrap=True,
            )

    def _start_event_writers(self, *arguments: Any, **settings: Any) -> None:
        try:
            _setup_event_writer(*arguments, **settings)
        except Exception as error:  # whatever wandb and comet raise without a key or a network
            raise UserError(
                f"--vis {self.config.vis}: it cannot be started; --vis viewer+tensorboard needs no account. "
                f"{in_one_line(error)}"
            ) from error

    def setup_optimizers(self) -> Optimizers:
        """nerfstudio's optimizers, whose schedules end with the run.

        They leave out a step whose gradients are not finite.
        """
        if self.config.max_num_iterations is None:
            photos = self.pipeline.datamanager.train_dataset
            assert photos is not None
            self.config.max_num_iterations = steps_for(photos.cameras)
        bad_steps = getattr(self.pipeline, "bad_steps", None) or BadSteps()
        self.bad_steps: BadSteps = bad_steps
        first_step = 0 if self._checkpoint is None else saved.step_of(self._checkpoint) + 1
        total_steps = self.config.max_num_iterations + (first_step if self.config.load_scheduler else 0)
        with replaced(self.config, "optimizers", fitted_to_run(self.config.optimizers, total_steps)):
            optimizers = super().setup_optimizers()
        leave_out_bad_steps(optimizers, self.grad_scaler, self.bad_steps)
        return optimizers

    @cached_property
    def _checkpoint(self) -> Path | None:
        """The checkpoint that the run is resumed from."""
        folder, step = self.config.load_dir, self.config.load_step
        if folder is not None:
            saved.check_resumable(folder, step)
            path = saved.checkpoint_of(folder, saved.newest_readable(folder) if step is None else step)
            saved.check_checkpoint(path, "--load-dir")
            return path
        if self.config.load_checkpoint is not None:
            saved.check_checkpoint(self.config.load_checkpoint, "--load-checkpoint")
        return self.config.load_checkpoint

    def _load_checkpoint(self) -> None:
        step = None if self._checkpoint is None or self.config.load_dir is None else saved.step_of(self._checkpoint)
        try:
            with replaced(self.config, "load_step", step):
                super()._load_checkpoint()
            order_moments(self.optimizers)
            keep_settings(self.optimizers)
            self._check_optimizers_have_the_parameters()
        except (UserError, torch.OutOfMemoryError):
            raise
        except (LookupError, ValueError, RuntimeError) as error:
            raise UserError(
                "The checkpoint does not fit this run; resume with the settings of the first run, which its config.yml "
                f"has. On a GPU, what began on a CPU needs --mixed-precision False. {in_one_line(error)}"
            ) from error

    def _check_optimizers_have_the_parameters(self) -> None:
        """TensoRF's checkpoints replace its parameters, which its optimizers would not notice."""
        optimized = {
            id(parameter)
            for optimizer in self.optimizers.optimizers.values()
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        groups = self.pipeline.get_param_groups()
        if any(id(parameter) not in optimized for name in self.optimizers.optimizers for parameter in groups[name]):
            raise UserError(
                f"{self.config.method_name} cannot be resumed from this checkpoint: its parameters have changed their "
                "number since training started, and nerfstudio would go on training the first ones. Train it again."
            )

    def train(self) -> None:
        """Train to the end, or to a signal.

        Raises:
            UserError: the last checkpoint could not be saved, or too many steps in a row were not finite.
            SystemExit: a signal ended training; with its status.
        """
        with errors_in_one_line():
            self._train()

    def _train(self) -> None:
        self._last_step = self._start_step - 1
        with self.interruption, _transform_written_at_once():
            super().train()
        if (number := self.interruption.number) is not None:
            self._say_how_to_resume()
            wait_for_all()  # torch's launcher ends the others soon after the first, and the main process saves
            raise SystemExit(status_of(number))
        if self.unsaved is not None:
            raise UserError(f"The checkpoint at the end of training could not be saved: {self.unsaved}.")

    def train_iteration(self, step: int) -> Any:
        """One step; see nerfstudio's trainer.

        Raises:
            UserError: too many photometric parts in a row were not finite.
        """
        self.interruption.phase = "training"
        self.bad_steps.begin(step)
        result = super().train_iteration(step)
        # Without a scaler such a loss shows in the gradients. With one, nerfstudio has waited for the GPU already.
        if self.grad_scaler.is_enabled() and not all_finite(average_scalars(result[0])):
            self.bad_steps.note("photometric", "loss")
        self.bad_steps.end()
        self._last_step = step
        self._stop_together()
        if (part := self.bad_steps.at_limit) is not None:
            newest = self._last_saved_step()
            kept = "none was saved yet"
            if newest is not None:
                kept = f"{saved.checkpoint_of(self.checkpoint_dir, newest)} is kept"
            raise UserError(
                f"Training stopped at step {step}: the {part} loss or its gradient was not finite "
                f"{self.bad_steps.LIMIT} times in a row. The last checkpoint: {kept}. Check the photos and the poses, "
                "lower the learning rates, or train with --mixed-precision False."
            )
        return result

    def save_checkpoint(self, step: int) -> None:
        """Save the state after the last finished step. A failure is said and remembered in `unsaved`.

        Args:
            step: nerfstudio's number of the step, which is one too high when training is stopped before its end.
        """
        if self._last_step is not None:
            if self._last_step < self._start_step:
                return
            step = min(step, self._last_step)
        written = False

        def write(state: Mapping[str, Any], path: Path) -> None:
            nonlocal written
            saved.write(state, path)
            written = True

        try:
            with replaced(torch, "save", write):
                super().save_checkpoint(step)
            self.unsaved, self._saved_step = None, step
        except (OSError, saved.NotWritten) as error:
            if written and isinstance(error, OSError):
                self.unsaved, self._saved_step = None, step
                CONSOLE.print(f"[yellow]An earlier checkpoint is kept: {escape(in_one_line(error))}.[/yellow]")
                return
            self.unsaved = saved.reason_of(error) if isinstance(error, OSError) else str(error)
            CONSOLE.print(
                f"[bold red]Step {step}: no checkpoint could be saved in {escape(str(self.checkpoint_dir))}: "
                f"{escape(self.unsaved)}. Earlier checkpoints are kept, and training goes on.[/bold red]",
                soft_wrap=True,
            )

    def _after_train(self) -> None:
        if (summary := self.bad_steps.summary()) is not None:
            CONSOLE.print(f"[yellow]{summary}[/yellow]", soft_wrap=True)
        if self.interruption.number is None:
            super()._after_train()
            return
        self.training_state = "completed"
        self.save_checkpoint(self.step)
        writer.write_out_storage()

    def _train_complete_viewer(self) -> None:
        """The viewer waits for Ctrl-C, which then ends the program well."""
        self.interruption.status_when_done = 0 if self.unsaved is None else 1
        self.interruption.phase = "done"
        if self.interruption.number is None:
            super()._train_complete_viewer()
            while self.config.is_viewer_enabled() and not comms.is_main_process():
                time.sleep(1)  # a process that ended would wait for the viewer's, and end it after half an hour

    def _stop(self) -> None:
        """A signal arrived. Processes that train together get it at different steps and stop at the same one."""
        if is_one_of_several():
            self.training_state = "training"  # a paused one takes one more step, in which all agree
        else:
            self.stop_training = True

    def _stop_together(self) -> None:
        if (number := maximum(self.interruption.number or 0, self.device)) != 0:
            self.interruption.number = number
            self.stop_training = True

    def _say_how_to_resume(self) -> None:
        newest = self._last_saved_step()
        if newest is None:
            CONSOLE.print("Interrupted; no checkpoint was saved.")
            return
        newer = [step for step in saved.steps_in(self.checkpoint_dir) if step > newest]
        left = steps_of_run(self) - newest - 1
        if left <= 0:
            CONSOLE.print("Interrupted at the end of training; nothing is left to train.")
            return
        if not self._can_be_resumed():
            CONSOLE.print(
                f"Interrupted after step {newest}. {self.config.method_name} cannot be resumed, but what is saved can "
                "be evaluated, rendered and exported.",
                soft_wrap=True,
            )
            return
        command = command_to_resume(
            sys.argv,
            method=str(self.config.method_name),
            checkpoints=self.checkpoint_dir,
            load_step=newest if newer else None,
            steps_left=left,
        )
        CONSOLE.print(f"Interrupted after step {newest}. Go on with: {escape(command)}", soft_wrap=True)

    def _can_be_resumed(self) -> bool:
        """Whether loading a checkpoint would leave the model's parameters in place; see `_load_checkpoint`."""
        replaces_always = isinstance(self.pipeline.model, RasterizedModel)
        return not replaces_always and self._sizes_of_parameters() == self._sizes_at_start

    def _sizes_of_parameters(self) -> dict[str, torch.Size]:
        return {name: parameter.shape for name, parameter in self.pipeline.named_parameters()}

    def _last_saved_step(self) -> int | None:
        """Step of the last checkpoint of this run in its folder, which is the loaded one until another is saved."""
        if self._saved_step is not None:
            return self._saved_step
        loaded = self._start_step - 1
        return loaded if loaded in saved.steps_in(self.checkpoint_dir) else None


def steps_for(cameras: Cameras) -> int:
    """The number of steps for photos of this size; says so."""
    side = shorter_side(cameras)
    steps = min(max(STEPS_PER_PIXEL * side, FEWEST_STEPS), MOST_STEPS)
    CONSOLE.print(f"Steps: {steps}, for photos of {side} pixels. Others: --max-num-iterations.")
    return steps


_setup_event_writer = writer.setup_event_writer


@contextlib.contextmanager
def _transform_written_at_once() -> Iterator[None]:
    """Inside, dataparser_transforms.json is written completely or not at all."""
    write = DataparserOutputs.save_dataparser_transform

    def write_at_once(outputs: DataparserOutputs, path: Path) -> None:
        if comms.is_main_process():
            with atomic_output(path) as unfinished:
                write(outputs, unfinished)

    with replaced(DataparserOutputs, "save_dataparser_transform", write_at_once):
        yield
