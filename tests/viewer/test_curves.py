import pytest
import torch

from dietnerf_ns.viewer.curves import MAX_POINTS, TrainingCurves

STEPS = 10 * MAX_POINTS * 3


@pytest.fixture
def curves():
    """Curves of a run with a constant error, and with a semantic loss from step 500 on."""
    curves = TrainingCurves()
    for step in range(STEPS):
        curves.add(step, mse=torch.tensor(0.01), semantic_loss=None if step < 500 else torch.tensor(0.25))
    return curves


def test_number_of_points_is_bounded_and_their_distance_is_constant(curves):
    steps, *_ = curves.read()
    assert MAX_POINTS / 2 <= len(steps) <= MAX_POINTS and steps[-1] > STEPS - 100
    assert len({b - a for a, b in zip(steps, steps[1:], strict=False)}) == 1


def test_curves_have_psnr_and_a_gap_without_semantic_loss(curves):
    steps, psnr, losses = curves.read()
    assert psnr == pytest.approx([20.0] * len(steps)), "-10 log10(0.01)"
    assert losses == [None if step < 500 else 0.25 for step in steps]
    assert curves.read() == (steps, psnr, losses), "reading changes nothing"


def test_figure_has_both_curves_on_their_own_axes(curves):
    steps, psnr, losses = curves.read()
    first, second = curves.figure().data
    assert (first.x, first.y, second.y) == (tuple(steps), tuple(psnr), tuple(losses))
    assert first.yaxis is None and second.yaxis == "y2"


def test_curves_without_points():
    curves = TrainingCurves()
    assert curves.read() == ([], [], [])
    assert len(curves.figure().data) == 2
