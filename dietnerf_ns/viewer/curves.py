"""PSNR of the photos and L_sc over the run, as a plot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_POINTS = 400
FIRST_STRIDE = 10
"""Steps between points, until there are too many; then every second one goes, again and again."""
PSNR_COLOUR, LOSS_COLOUR = "#4dabf7", "#ffd369"


class TrainingCurves:
    """Collects the points of both curves, thinned out as the run grows, and draws them."""

    def __init__(self):
        self._stride = FIRST_STRIDE
        # Tensors until they are drawn: reading them at once would make a GPU wait.
        self._points: list[tuple[int, Tensor | float, Tensor | float | None]] = []

    def add(self, step: int, *, mse: Float[Tensor, ""], semantic_loss: Float[Tensor, ""] | None) -> None:
        """Note a step.

        Args:
            step: of the run.
            mse: mean squared error of the step's training rays, RGB in [0, 1].
            semantic_loss: the last L_sc, weighted; None while there is none, which leaves a gap.
        """
        if step % self._stride:
            return
        self._points.append((step, mse, semantic_loss))
        if len(self._points) > MAX_POINTS:
            self._points, self._stride = self._points[::2], 2 * self._stride

    def read(self) -> tuple[list[int], list[float], list[float | None]]:
        """Steps, PSNR in dB and L_sc."""
        self._points = [(step, float(mse), None if loss is None else float(loss)) for step, mse, loss in self._points]
        steps, errors, losses = zip(*self._points, strict=True) if self._points else ((), (), ())
        return list(steps), [-10 * math.log10(max(mse, 1e-10)) for mse in errors], list(losses)

    def figure(self) -> go.Figure:
        """PSNR against the left axis, L_sc against the right one."""
        import plotly.graph_objects as go

        steps, psnr, losses = self.read()
        return go.Figure(
            data=[
                {
                    "type": "scatter",
                    "name": "PSNR, dB",
                    "mode": "lines",
                    "x": steps,
                    "y": psnr,
                    "line": {"color": PSNR_COLOUR},
                },
                {
                    "type": "scatter",
                    "name": "L_sc",
                    "mode": "lines",
                    "x": steps,
                    "y": losses,
                    "line": {"color": LOSS_COLOUR},
                    "yaxis": "y2",
                },
            ],
            layout={
                "template": "plotly_dark",
                "margin": {"l": 30, "r": 40, "t": 10, "b": 25},
                "legend": {"orientation": "h", "y": 1.3},
                "yaxis": {"color": PSNR_COLOUR},
                "yaxis2": {"color": LOSS_COLOUR, "overlaying": "y", "side": "right", "showgrid": False},
            },
        )
