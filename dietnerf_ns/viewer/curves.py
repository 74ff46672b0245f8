"""A plot of the training: PSNR of the training rays and L_sc over the steps of the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_POINTS = 400
FIRST_STRIDE = 10
"""Steps between two points at the start. When there are more than `MAX_POINTS`, every second one is dropped and the
stride doubles."""
PSNR_COLOUR, LOSS_COLOUR = "#4dabf7", "#ffd369"


class TrainingCurves:
    """Collects the points of both curves, thins them out as the run grows, and draws them."""

    def __init__(self):
        self._stride = FIRST_STRIDE
        # The values stay tensors until they are drawn: reading them at every step would make a GPU wait.
        self._points: list[tuple[int, Tensor | float, Tensor | float | None]] = []

    def add(self, step: int, *, mse: Float[Tensor, ""], semantic_loss: Float[Tensor, ""] | None) -> None:
        """Record a training step, unless it lies between two points of the plot.

        Args:
            step: training step of the run.
            mse: mean squared error of the step's training rays, RGB in [0, 1].
            semantic_loss: the latest weighted L_sc. None leaves a gap in the curve.
        """
        if step % self._stride:
            return
        self._points.append((step, mse, semantic_loss))
        if len(self._points) > MAX_POINTS:
            self._points, self._stride = self._points[::2], 2 * self._stride

    def read(self) -> tuple[list[int], list[float], list[float | None]]:
        """Steps, PSNR in dB and weighted L_sc (None where there is a gap) of all points."""
        points = [(step, float(mse), None if loss is None else float(loss)) for step, mse, loss in self._points]
        self._points = [*points]
        psnr = [-10 * math.log10(max(mse, 1e-10)) for _, mse, _ in points]
        return [step for step, _, _ in points], psnr, [loss for _, _, loss in points]

    def figure(self) -> go.Figure:
        """Draw PSNR against the left axis and L_sc against the right axis."""
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
