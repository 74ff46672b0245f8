"""The checkpoints in a run's folder: how one is written, which can be read, and which is loaded."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from nerfstudio.utils import comms
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from dietnerf_ns.training.atomic import replacing
from dietnerf_ns.utils.errors import UserError, in_one_line
from dietnerf_ns.utils.saved_runs import CHECKPOINT_NAME

# nerfstudio reads a number between the first dash and the first dot of every name in the folder and takes the largest.
# This one is -1, so that a file left behind by a crash is no step; without a number nerfstudio could not start.
UNFINISHED = "unfinished--1.tmp"
PARTS = {"step", "pipeline", "optimizers", "scalers"}
REASON_LENGTH = 160

_torch_save = torch.save


class NotWritten(Exception):
    """A checkpoint that could not be written; the message is the reason."""


def write(state: Mapping[str, Any], path: Path) -> None:
    """`torch.save` by way of `replacing`.

    Raises:
        NotWritten: the disk is full, or the folder cannot be written to. What was there is untouched.
    """
    try:
        with replacing(path, unfinished=path.with_name(UNFINISHED)) as file:
            _torch_save(state, file)
    except (OSError, RuntimeError) as error:
        raise NotWritten(reason_of(error)) from error


def remove_unfinished(folder: Path) -> None:
    """Remove what a crash left behind."""
    try:
        (folder / UNFINISHED).unlink(missing_ok=True)
    except OSError as error:
        CONSOLE.print(f"[yellow]{escape(str(folder / UNFINISHED))} cannot be removed: {reason_of(error)}.[/yellow]")


def next_config(run: Path) -> Path:
    """Where a run that is resumed in its own folder has its settings until they are known to fit."""
    return run / ".config-of-resumed-run.yml"


@contextlib.contextmanager
def config_replaced_at_end(run: Path) -> Iterator[None]:
    """Inside, the model of a run's folder is loaded. Then `next_config`, if there is one, takes config.yml's place.

    After an error the earlier config.yml stays, which the earlier model needs. With several processes, the main one
    does this.
    """
    following = next_config(run)
    try:
        yield
        if comms.is_main_process() and following.exists():
            following.replace(run / "config.yml")
    finally:
        if comms.is_main_process():
            following.unlink(missing_ok=True)


def steps_in(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, the newest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted((int(match[1]) for name in names if (match := CHECKPOINT_NAME.fullmatch(name))), reverse=True)


def checkpoint_of(folder: Path, step: int) -> Path:
    """The file that nerfstudio writes after a step."""
    return folder / f"step-{step:09d}.ckpt"


def damage_of(path: Path) -> str | None:
    """Why a file is not a checkpoint of nerfstudio's trainer that can be read, or None if it is one.

    The whole file is compared with its check sums; tensors are not kept in memory.
    """
    try:
        if path.stat().st_size == 0:
            return "it is empty"
        if not zipfile.is_zipfile(path):
            return "it is cut off, or no checkpoint"
        with zipfile.ZipFile(path) as file:
            if (part := file.testzip()) is not None:
                return f"its part {part} is damaged"
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # damaged archives and pickles raise nearly anything
        return reason_of(error)
    missing = PARTS - content.keys() if isinstance(content, dict) else PARTS
    return f"it lacks {', '.join(sorted(missing))}" if missing else None


def step_of(path: Path) -> int:
    """The step after which a readable checkpoint was saved."""
    return int(torch.load(path, map_location="cpu", mmap=True, weights_only=True)["step"])


def check_resumable(load_dir: Path, load_step: int | None) -> None:
    """Refuse a folder to resume from in which nothing can be found, before anything is loaded.

    Raises:
        UserError: there is no such folder, no checkpoint in it, or not the one that is asked for.
    """
    if not load_dir.is_dir():
        raise UserError(f"--load-dir {load_dir}: there is no such folder; give the nerfstudio_models folder of a run.")
    steps = steps_in(load_dir)
    if not steps:
        inside = load_dir / "nerfstudio_models"
        hint = f"use --load-dir {inside}" if steps_in(inside) else "give the nerfstudio_models folder of a run"
        raise UserError(f"--load-dir {load_dir}: there is no checkpoint (step-....ckpt) in this folder; {hint}.")
    if load_step is not None and load_step not in steps:
        known = ", ".join(map(str, sorted(steps)))
        raise UserError(
            f"--load-step {load_step}: there is no such checkpoint in {load_dir}; it has the steps {known}."
        )


def check_checkpoint(path: Path, flag: str) -> None:
    """Refuse a file that is not a checkpoint.

    Raises:
        UserError: it does not exist or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{flag} {path}: there is no such file.")
    if (damage := damage_of(path)) is not None:
        raise UserError(f"{flag} {path}: this is no checkpoint that can be read: {damage}.")


def newest_readable(folder: Path) -> int:
    """The step of the newest checkpoint that can be read; says so if it is not the newest one.

    Raises:
        UserError: none of them can be read, or there is none.
    """
    damaged: list[str] = []
    for step in steps_in(folder):
        path = checkpoint_of(folder, step)
        if (damage := damage_of(path)) is None:
            if damaged:
                CONSOLE.print(
                    f"[yellow]{escape(str(folder))}: {escape('; '.join(damaged))}. The older {path.name} is loaded "
                    "instead.[/yellow]",
                    soft_wrap=True,
                )
            return step
        damaged.append(f"{path.name} cannot be read ({damage})")
    raise UserError(
        f"{folder}: there is no checkpoint that can be read: {'; '.join(damaged) or 'the folder has none'}."
    )


def reason_of(error: BaseException) -> str:
    """The reason of an error in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return in_one_line(error)[:REASON_LENGTH]
