"""When semantic views are rendered."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SemanticSchedule:
    """Every `every` steps from `first_step` up to, but not including, `end_step`."""

    first_step: int
    end_step: int
    every: int

    @classmethod
    def of_run(cls, *, start: float, stop: float, every: int, total_steps: int) -> SemanticSchedule:
        """The schedule of a run.

        Args:
            start: first step; below 1 a fraction of the run's steps.
            stop: end step; up to 1 a fraction of the run's steps.
            every: steps from one semantic view to the next.
            total_steps: number of steps of the run.
        """
        return cls(
            first_step=round(start * (total_steps if start < 1 else 1)),
            end_step=round(stop * (total_steps if stop <= 1 else 1)),
            every=every,
        )

    def next_step(self, step: int) -> int | None:
        """The first semantic step from a step on, or None if there is none."""
        rounds = max(0, math.ceil((step - self.first_step) / self.every))
        following = self.first_step + rounds * self.every
        return following if following < self.end_step else None

    def is_active(self, step: int) -> bool:
        """Whether the step lies in the part of the run that has semantic views."""
        return self.first_step <= step < self.end_step

    def is_due(self, step: int) -> bool:
        """Whether a semantic view is rendered at this step."""
        return self.is_active(step) and (step - self.first_step) % self.every == 0
