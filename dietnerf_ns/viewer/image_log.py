"""Pictures of semantic steps for tensorboard, wandb and comet, through nerfstudio's writer."""

from __future__ import annotations

from nerfstudio.utils import writer

from dietnerf_ns.semantic.consistency import SemanticConsistency
from dietnerf_ns.viewer.visualization import SemanticVisualization

IMAGES_PER_RUN = 40
NAME = "Semantic Images/render-target-gradient"


class SemanticImageLog:
    """Logs a picture of a semantic step now and then, evenly over the run.

    Args:
        semantic: prepared, with an encoder.
        pictures: draws them.
    """

    def __init__(self, semantic: SemanticConsistency, pictures: SemanticVisualization):
        self._semantic, self._pictures = semantic, pictures
        self._interval = (semantic.end_step - semantic.first_step) / IMAGES_PER_RUN
        self._next_step = 0.0

    def after_step(self, step: int) -> None:
        """Log the step if it was a semantic one and enough steps lie behind the last picture."""
        last = self._semantic.last
        if last is None or last.step != step or step < self._next_step:
            return
        self._next_step = step + self._interval
        writer.put_image(NAME, self._pictures.side_by_side(last), step)
