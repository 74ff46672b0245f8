"""The arc that cameras cover."""

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from dietnerf_ns.geometry.sphere import ALL_AZIMUTHS, WIDEST_GAP_DEG, covered_azimuths
from tests.properties.strategies import floats

azimuths = st.lists(floats(-180, 180), min_size=1, max_size=8).map(torch.tensor)


def gaps_of(angles: torch.Tensor) -> torch.Tensor:
    ordered = (angles.double() % 360).sort().values
    return torch.cat([ordered, ordered[:1] + 360]).diff().sort(descending=True).values


def limit_of(angles: torch.Tensor) -> float:
    """Width of a gap that is left out, in degrees."""
    rest = 360 - float(gaps_of(angles)[0])
    return max(WIDEST_GAP_DEG, 2 * rest / max(1, len(angles) - 1))


@given(azimuths)
def test_the_arc_holds_every_camera(angles):
    """Each azimuth lies in the arc, modulo a turn, and the arc is at most a whole turn wide."""
    start, end = covered_azimuths(angles)
    assert 0 <= end - start <= 360
    assert all((angle - start + 1e-3) % 360 <= end - start + 2e-3 for angle in angles.tolist())


@given(azimuths)
def test_the_arc_begins_and_ends_at_cameras_and_is_the_shortest(angles):
    """The arc leaves out the widest gap and nothing else, if that gap is above 120 degrees and twice the mean of the
    others; otherwise it is the whole circle."""
    start, end = covered_azimuths(angles)
    excess = float(gaps_of(angles)[0]) - limit_of(angles)
    if abs(excess) > 1e-2:
        assert ((start, end) == ALL_AZIMUTHS) == (excess < 0)
    if (start, end) != ALL_AZIMUTHS:
        assert abs((end - start) - (360 - float(gaps_of(angles)[0]))) < 1e-2
        for limit in (start, end):
            assert min(min((a - limit) % 360, (limit - a) % 360) for a in angles.tolist()) < 1e-2


@given(azimuths, floats(-180, 180))
def test_turning_the_cameras_turns_the_arc(angles, turn):
    """If all azimuths turn by one angle the arc turns by it, or stays the whole circle. Ties aside: two gaps of equal
    width, and gaps at the limits."""
    gaps = gaps_of(angles)
    assume(abs(float(gaps[0]) - limit_of(angles)) > 1e-2)
    assume(len(gaps) == 1 or float(gaps[0] - gaps[1]) > 1e-2)
    before = covered_azimuths(angles)
    after = covered_azimuths((angles + turn + 180) % 360 - 180)
    if before == ALL_AZIMUTHS:
        assert after == ALL_AZIMUTHS
    else:
        assert abs((after[1] - after[0]) - (before[1] - before[0])) < 1e-2
        difference = (after[0] - before[0] - turn) % 360
        assert min(difference, 360 - difference) < 1e-2
