"""Schedules over a run."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dietnerf_ns.fields.coarse_to_fine import level_weights
from dietnerf_ns.semantic.schedule import SemanticSchedule
from tests.properties.strategies import floats


@given(floats(0, 1), floats(0, 1), st.integers(1, 30), st.integers(1, 300))
def test_semantic_views_lie_in_their_part_of_the_run(start, stop, every, total_steps):
    """With fractions of the run as ends, no step outside of the run has a semantic view, the first one is at the start,
    and there is one in each interval of `every` steps of the active part."""
    if start == 1:
        start = 0.5
    schedule = SemanticSchedule.of_run(start=start, stop=stop, every=every, total_steps=total_steps)
    due = [step for step in range(-5, total_steps + 5) if schedule.is_due(step)]
    active = [step for step in range(-5, total_steps + 5) if schedule.is_active(step)]
    assert set(due) <= set(active) <= set(range(total_steps))
    assert due == active[::every]
    if active:
        assert active == list(range(round(start * total_steps), round(stop * total_steps)))


@given(floats(0, 1), st.integers(1, 100), st.integers(1, 30), st.integers(1, 300))
def test_a_longer_part_has_no_fewer_views(stop, more, every, total_steps):
    """A later end adds views and removes none."""
    longer = min(1.0, stop + more / 100)
    first, second = (
        {
            step
            for step in range(total_steps)
            if SemanticSchedule.of_run(start=0, stop=end, every=every, total_steps=total_steps).is_due(step)
        }
        for end in (stop, longer)
    )
    assert first <= second


@given(floats(0, 1), floats(0, 1), st.integers(1, 8))
def test_levels_are_enabled_one_after_the_other(progress, later, num_levels):
    """Weights are in [0, 1]; the coarsest is 1 from the start and all are 1 at the end; a finer level never has more
    than a coarser one, is not enabled before the coarser one is 1, and none ever falls."""
    weights = level_weights(progress, num_levels)
    assert weights.shape == (num_levels,) and (weights >= 0).all() and (weights <= 1).all() and weights[0] == 1
    assert (weights.diff() <= 0).all()
    assert ((weights > 0) & (weights < 1)).sum() <= 1
    assert (level_weights(max(progress, later), num_levels) >= weights - 1e-6).all()
    assert (level_weights(1, num_levels) == 1).all()
    assert torch.equal(level_weights(0, num_levels), torch.eye(num_levels)[0])
