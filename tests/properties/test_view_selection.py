"""Which few views are kept."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dietnerf_ns.data.view_selection import farthest_views, select_views
from dietnerf_ns.geometry.cameras import viewing_directions
from tests.properties.strategies import looking_poses, moved, rotations, seeds, vectors

TIE = 5e-3
"""Difference of distances that float32 does not tell apart: angles of nearly equal directions are that inexact."""


def view_distances(poses: torch.Tensor) -> torch.Tensor:
    """As `farthest_views` documents them, in double precision."""
    directions, positions = viewing_directions(poses.double()), poses[:, :, 3].double()
    lengths = torch.cdist(positions, positions)
    angles = torch.acos((directions @ directions.T).clamp(-1, 1)) / torch.pi
    return angles + lengths / lengths.max().clamp_min(1e-9)


@given(looking_poses(), st.sampled_from(["first", "random", "farthest"]), seeds, st.data())
def test_a_selection_has_distinct_existing_views(poses, strategy, seed, data):
    """A choice of n views is n different indices of the split, and choosing again gives the same ones."""
    count = data.draw(st.integers(1, len(poses)))
    how = {"num_views": count, "strategy": strategy, "seed": seed, "indices": None, "protocol": None}
    chosen = select_views(poses, **how)
    assert len(chosen) == len(set(chosen)) == count and set(chosen) <= set(range(len(poses)))
    assert select_views(poses, **how) == chosen


@given(looking_poses(), st.sampled_from(["first", "random", "farthest"]), seeds, st.data())
def test_more_views_begin_with_the_same_ones(poses, strategy, seed, data):
    """The choice of n views is the beginning of the choice of n + 1."""
    count = data.draw(st.integers(1, len(poses) - 1))
    how = {"strategy": strategy, "seed": seed, "indices": None, "protocol": None}
    assert select_views(poses, num_views=count + 1, **how)[:count] == select_views(poses, num_views=count, **how)


@given(looking_poses(min_size=3), rotations(), vectors())
def test_farthest_views_do_not_depend_on_the_frame(poses, rotation, offset):
    """After a rigid motion of the world the choice is still greedy for the distances before it, up to ties."""
    distances = view_distances(poses)
    chosen = farthest_views(moved(poses, rotation, offset), len(poses))
    assert distances[chosen[0]].max() >= distances.max() - TIE
    for step in range(1, len(chosen)):
        to_taken = distances[:, chosen[:step]].amin(dim=1)
        left = [view for view in range(len(poses)) if view not in chosen[:step]]
        assert to_taken[chosen[step]] >= to_taken[left].max() - TIE
