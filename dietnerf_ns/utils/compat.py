"""What nerfstudio 1.1.5 needs on today's libraries. Each entry says when it can go."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer


def allow_numpy_scalars_in_checkpoints() -> None:
    """Let `torch.load(weights_only=True)` read the learning rates in nerfstudio's checkpoints.

    torch >= 2.6 loads safely by default, and nerfstudio stores learning rates as `numpy.float64`. Exactly the three
    types of such a number are allow-listed; nothing else becomes loadable.
    Removable with the first nerfstudio release that stores plain floats.
    """
    unpickle_scalar = np.float64().__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # as numpy 1 and numpy 2 write it
    scalars = [(unpickle_scalar, name) for name in names]
    allowed: list[Any] = [*scalars, np.dtype, np.dtypes.Float64DType]
    torch.serialization.add_safe_globals(allowed)


def hide_known_warnings() -> None:
    """Hide warnings of nerfstudio 1.1.5 on torch >= 2.4 that appear in every run and that a user cannot act on.

    Called when a pipeline of this package is built, so that other methods' warnings stay visible.
    Removable with the first nerfstudio release for torch >= 2.9.
    """
    for message in (
        "Using a non-tuple sequence for multidimensional indexing",
        "This DataLoader will create",
        ".*Using torch.cross without specifying the dim",
    ):
        warnings.filterwarnings("ignore", message=message)


def complete_cameras(cameras: Cameras) -> None:
    """Give cameras what `ns-export cameras` (metadata) and `ns-render spiral` (float32 intrinsics) need.

    Removable when nerfstudio's blender dataparser makes float32 intrinsics and its exporter accepts such cameras.
    """
    if cameras.metadata is None:
        cameras.metadata = {}
    for intrinsic in ("fx", "fy", "cx", "cy"):
        setattr(cameras, intrinsic, getattr(cameras, intrinsic).float())


def steps_of_run(trainer: Trainer) -> int:
    """The step at which the run ends. A resumed run trains `max_num_iterations` more steps and counts on.

    Removable when nerfstudio's trainer offers it.
    """
    return trainer._start_step + trainer.config.max_num_iterations


@contextlib.contextmanager
def replaced(owner: object, name: str, value: Any) -> Iterator[None]:
    """Inside, the owner's attribute has another value."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


INTERRUPTED_BY_VIEWER = ("nerfstudio.", "concurrent.futures._base")
"""Beginnings of the names of modules whose lines the viewer may interrupt: between operations of a render, and while it
waits for threads."""


@contextlib.contextmanager
def interrupted_in_nerfstudio_only() -> Iterator[None]:
    """Inside, nerfstudio's viewer interrupts a render at lines of `INTERRUPTED_BY_VIEWER` alone.

    It does so by an exception at whatever line is traced. In the midst of `replaced`, or of Python's own context
    managers, the model would go on training with the settings of an image.
    Removable when nerfstudio's viewer interrupts renders between chunks of rays.
    """
    interrupt = sys.gettrace()
    if getattr(interrupt, "__name__", "") != "check_interrupt":  # none, or that of a debugger
        yield
        return
    assert interrupt is not None

    def interrupt_there(frame: FrameType, event: Any, arg: Any) -> Any:
        is_there = frame.f_globals.get("__name__", "").startswith(INTERRUPTED_BY_VIEWER)
        return interrupt(frame, event, arg) if is_there else None

    sys.settrace(interrupt_there)
    try:
        yield
    finally:
        sys.settrace(interrupt)


@contextlib.contextmanager
def lpips_replaced_by(substitute: type) -> Iterator[None]:
    """Build nerfstudio models without their LPIPS network, whose backbone is a download.

    Inside, `torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity` is `substitute`.
    Removable when nerfstudio's models load LPIPS at its first use.
    """
    from torchmetrics.image import lpip

    with replaced(lpip, "LearnedPerceptualImagePatchSimilarity", substitute):
        yield
