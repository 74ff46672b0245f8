"""Learning curves, read from the tensorboard files that nerfstudio writes."""

from __future__ import annotations

from pathlib import Path

CURVES = {"photos": "Train Metrics Dict/psnr", "unseen views": "Eval Metrics Dict/psnr"}
"""nerfstudio's tags of the curves: PSNR in dB of one batch of rays of the training or the validation views."""


def read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read every curve of `CURVES` that the run logged, as (step, value) pairs.

    Args:
        run: folder with tensorboard event files.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(run), size_guidance={SCALARS: 0}).Reload()
    logged = events.Tags()[SCALARS]
    return {
        name: [(event.step, event.value) for event in events.Scalars(tag)]
        for name, tag in CURVES.items()
        if tag in logged
    }
