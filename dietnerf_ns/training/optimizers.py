"""Optimizers and learning rate schedules of the registered methods, in nerfstudio's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecayScheduler, ExponentialDecaySchedulerConfig


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
    """
    return {
        name: {kind: _fitted(config, total_steps) for kind, config in group.items()}
        for name, group in optimizers.items()
    }


def _fitted(config: Any, total_steps: int) -> Any:
    if isinstance(config, DecayOverRunConfig) and config.max_steps is None:
        return replace(config, max_steps=total_steps)
    return config
