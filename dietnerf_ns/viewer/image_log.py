"""Images of semantic steps for tensorboard, wandb and comet, written through nerfstudio's writer."""

from __future__ import annotations

from nerfstudio.utils import writer

from dietnerf_ns.semantic.consistency import SemanticConsistency
from dietnerf_ns.viewer.visualization import SemanticVisualization

IMAGES_PER_RUN = 40
NAME = "Semantic Images/render-target-gradient"


class SemanticImageLog:
    """Logs images of at most `IMAGES_PER_RUN` semantic steps, evenly spread over the run.

    Args:
        semantic: the semantic loss of the training.
        visualization: draws the images.
    """

    def __init__(self, semantic: SemanticConsistency, visualization: SemanticVisualization):
        self._semantic, self._visualization = semantic, visualization
        self._interval = (semantic.schedule.end_step - semantic.schedule.first_step) / IMAGES_PER_RUN
        self._next_step = 0.0

    def after_step(self, step: int) -> None:
        """Log a training step if it was a semantic step and the last image lies at least an interval back."""
        last = self._semantic.last
        if last is None or last.step != step or step < self._next_step:
            return
        self._next_step = step + self._interval
        writer.put_image(NAME, self._visualization.side_by_side(last), step)
