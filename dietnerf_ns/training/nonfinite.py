"""Losses and gradients that are not finite: what they would have changed is left out, counted, and limited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from dietnerf_ns.utils.distributed import average_gradients

Part = Literal["photometric", "semantic"]
AT_LIMIT: dict[Part, str] = {"photometric": "training stops", "semantic": "the semantic loss is switched off"}
"""What happens when a part has been left out too many times in a row."""


FIRST_SCALE = 65536.0
"""Of torch's gradient scalers."""


def all_finite(tensors: Sequence[Tensor | None]) -> bool:
    """Whether all numbers are finite. Each tensor is read once; a GPU is waited for once.

    Args:
        tensors: gradients, of which the missing ones count as finite.
    """
    sums = [tensor.detach().sum(dtype=torch.float32) for tensor in tensors if tensor is not None]
    return not sums or bool(torch.stack(sums).isfinite().all())


def is_searching(grad_scaler: GradScaler) -> bool:
    """Whether gradients that are not finite are part of a scaler's search for its scale, which leaves such steps out.

    The search begins at `FIRST_SCALE` and has no use for factors below 1.
    """
    return grad_scaler.is_enabled() and grad_scaler.get_scale() >= 1


def restart_search(grad_scaler: GradScaler) -> None:
    """Let a scaler look for its scale anew, because what made gradients overflow is gone.

    Otherwise it would double its scale every 2000 steps only, and half precision would lose small gradients until then.
    """
    if grad_scaler.is_enabled():
        grad_scaler.update(FIRST_SCALE)


def leave_out_bad_steps(optimizers: Optimizers, grad_scaler: GradScaler, bad_steps: BadSteps) -> None:
    """Make nerfstudio's trainer leave out steps whose gradients are not finite.

    Args:
        optimizers: of the trainer. The gradients of several processes are averaged before they are looked at.
        grad_scaler: of the trainer. It is not updated after a step without gradients, which torch refuses.
        bad_steps: counts what is left out.
    """
    step_some, update_scale = optimizers.optimizer_scaler_step_some, grad_scaler.update
    has_seen_gradients = False

    def step_if_finite(grad_scaler: Any, param_groups: list[str]) -> None:
        nonlocal has_seen_gradients
        # Not `optimizers.parameters`: a method such as TensoRF replaces its parameters while it trains.
        groups = [one for name in param_groups for one in optimizers.optimizers[name].param_groups]
        parameters = [parameter for group in groups for parameter in group["params"]]
        average_gradients(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return  # the scaler refuses to be asked twice about a step without any
        if is_searching(grad_scaler) or all_finite(gradients):
            step_some(grad_scaler, param_groups)
            has_seen_gradients = True
            bad_steps.has_stepped()
        else:
            bad_steps.note("photometric", "gradient")

    def update_after_gradients(new_scale: float | Tensor | None = None) -> None:
        nonlocal has_seen_gradients
        if has_seen_gradients or new_scale is not None:
            update_scale(new_scale)
        has_seen_gradients = False

    optimizers.optimizer_scaler_step_some = step_if_finite
    grad_scaler.update = update_after_gradients


class BadSteps:
    """Counts the steps of which a part was left out."""

    LIMIT: ClassVar[int] = 20
    """See `AT_LIMIT`; so many in a row. The weights do not change in them, but the rays do: it is no bad luck."""

    def __init__(self) -> None:
        self.counts: dict[Part, int] = {"photometric": 0, "semantic": 0}
        """Number of steps whose part was left out."""
        self._in_a_row: dict[Part, int] = {"photometric": 0, "semantic": 0}
        self._noted: set[Part] = set()
        self._step = 0
        self._has_stepped = False

    def begin(self, step: int) -> None:
        """A step begins."""
        self._step = step
        self._noted.clear()
        self._has_stepped = False

    def note(self, part: Part, what: Literal["loss", "gradient"]) -> None:
        """A part of this step is left out.

        Args:
            part: of the losses.
            what: is not finite.
        """
        if self._noted:  # one fault: the total of all losses is not finite either
            return
        self._noted.add(part)
        self.counts[part] += 1
        self._in_a_row[part] += 1
        if sum(self.counts.values()) == 1:
            CONSOLE.print(
                f"[yellow]Step {self._step}: the {part} {what} is not finite. This part of the step is left out. "
                f"Training goes on; after {self.LIMIT} such steps in a row {AT_LIMIT[part]}.[/yellow]",
                soft_wrap=True,
            )

    def is_fine(self, part: Part) -> None:
        """A part of this step was finite."""
        self._in_a_row[part] = 0

    def has_stepped(self) -> None:
        """Some optimizer has stepped; with gradient accumulation none does in most steps."""
        self._has_stepped = True

    def end(self) -> None:
        """The step is done."""
        if self._has_stepped and "photometric" not in self._noted:
            self.is_fine("photometric")

    @property
    def photometric_left_out(self) -> bool:
        """Whether the photometric part of this step was left out."""
        return "photometric" in self._noted

    @property
    def at_limit(self) -> Part | None:
        """The part that was left out too many times in a row, or None."""
        return next((part for part, count in self._in_a_row.items() if count >= self.LIMIT), None)

    def summary(self) -> str | None:
        """What was left out of the run, or None if nothing was."""
        if not any(self.counts.values()):
            return None
        return (
            f"Losses or gradients were not finite: the photometric part of {self.counts['photometric']} steps and the "
            f"semantic part of {self.counts['semantic']} were left out."
        )
