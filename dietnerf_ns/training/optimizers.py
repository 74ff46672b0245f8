"""Optimizers and learning rate schedules of the registered methods, in nerfstudio's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecayScheduler, ExponentialDecaySchedulerConfig

from dietnerf_ns.utils.errors import check_limits, flags_under


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam with torch's fused kernel."""

    fused: bool = True
    """Whether each parameter is updated in one pass over memory, several times as fast on a CPU."""


@dataclass
class DecayOverRunConfig(ExponentialDecaySchedulerConfig):
    """Exponential decay of a learning rate over the whole run."""

    _target: type = field(default_factory=lambda: ExponentialDecayScheduler)
    max_steps: int | None = None  # type: ignore[assignment]
    """Step at which the final learning rate is reached. When not given: the last step of the run."""


def fitted_to_run(optimizers: Mapping[str, Any], total_steps: int) -> dict[str, Any]:
    """The same optimizers with the schedules that end with the run.

    Args:
        optimizers: `optimizer` and `scheduler` configurations by parameter group, as in nerfstudio's `TrainerConfig`.
        total_steps: step at which the run ends.

    Raises:
        UserError: a learning rate that such a schedule cannot have.
    """
    fitted = {
        name: {kind: _fitted(config, total_steps) for kind, config in group.items()}
        for name, group in optimizers.items()
    }
    check_schedules(fitted)
    return fitted


def check_schedules(optimizers: Mapping[str, Any]) -> None:
    """Refuse exponential schedules whose learning rates are no numbers.

    Args:
        optimizers: see `fitted_to_run`.

    Raises:
        UserError: for the first one.
    """
    for name, group in optimizers.items():
        schedule = group.get("scheduler")
        if not isinstance(schedule, ExponentialDecaySchedulerConfig):
            continue
        flags = f"--optimizers.{name.replace('_', '-')}."
        with flags_under(f"{flags}optimizer."):
            optimizer = group["optimizer"]
            check_limits(optimizer, {"lr": (optimizer.lr > 0, "above 0, because its schedule is exponential")})
        last, warmup = schedule.max_steps, schedule.warmup_steps
        with flags_under(f"{flags}scheduler."):
            limits = {
                "lr_final": (schedule.lr_final is None or schedule.lr_final > 0, "above 0"),
                "max_steps": (last is None or last >= 1, "at least 1"),
                "warmup_steps": (warmup >= 0 and warmup != last, f"at least 0 and not max-steps, {last}"),
            }
            check_limits(schedule, limits)


def _fitted(config: Any, total_steps: int) -> Any:
    if isinstance(config, DecayOverRunConfig) and config.max_steps is None:
        return replace(config, max_steps=total_steps)
    return config
