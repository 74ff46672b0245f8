import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs, Semantics

from dietnerf_ns.data.protocols import (
    PROTOCOLS,
    departure_in_evaluation,
    departure_in_training,
    protocol_test_indices,
)
from dietnerf_ns.data.view_selection import farthest_views, keep_views, select_views
from dietnerf_ns.geometry.cameras import direction_coverage, viewing_directions
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.scenes import SHARED_DATA


def select(poses, **how):
    defaults = {"num_views": None, "strategy": "first", "seed": 0, "indices": None, "protocol": None}
    return select_views(poses, **(defaults | how))


def test_everything_is_kept_when_nothing_is_asked_for():
    assert select(ring_of_poses(5)) == [0, 1, 2, 3, 4]


def test_first_random_and_explicit_lists():
    poses = ring_of_poses(20)
    assert select(poses, num_views=3) == [0, 1, 2]
    assert select(poses, indices=(7, 3)) == [7, 3]
    random = select(poses, num_views=6, strategy="random", seed=1)
    assert random == select(poses, num_views=6, strategy="random", seed=1)
    assert random != select(poses, num_views=6, strategy="random", seed=2)
    assert len(set(random)) == 6


def test_random_with_seed_0_gives_the_papers_eight_views():
    chosen = select(ring_of_poses(100), num_views=8, strategy="random", seed=0)
    assert tuple(chosen) == PROTOCOLS["blender-8"].train_indices == (26, 86, 2, 55, 75, 93, 16, 73)


def test_farthest_takes_opposite_cameras_of_a_ring():
    chosen = farthest_views(ring_of_poses(8), 4)
    assert abs(chosen[0] - chosen[1]) == 4
    assert len({index % 2 for index in chosen}) == 1, "four of eight evenly spaced: every other one"


def test_farthest_does_not_depend_on_where_the_origin_is():
    """torch's fast distances lose half of the digits far from it."""
    poses = ring_of_poses(60)
    moved = poses + torch.tensor([[0.0, 0.0, 0.0, 1000.0]])
    positions = poses[:, :, 3].double()

    def least_distance(chosen):
        return torch.pdist(positions[chosen]).min()

    for count in (2, 4, 8):
        assert least_distance(farthest_views(moved, count)) > 0.99 * least_distance(farthest_views(poses, count))


def test_farthest_prefers_distant_positions_when_directions_agree():
    poses = torch.eye(4)[:3].repeat(4, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.0, 0.1, 0.2, 5.0])
    assert set(farthest_views(poses, 2)) == {0, 3}


@pytest.mark.parametrize(
    "how, words",
    [
        ({"num_views": 9}, "1 to 5"),
        ({"num_views": 0}, "1 to 5"),
        ({"indices": (1, 5)}, "views 0 to 4"),
        ({"indices": (1, 1)}, "twice"),
        ({"protocol": "blender-8"}, "blender-8"),
        ({"num_views": 2, "indices": (1,)}, "contradict"),
    ],
)
def test_impossible_choices_are_refused_with_the_way_out(how, words):
    with pytest.raises(UserError, match=words):
        select(ring_of_poses(5), **how)


def test_coverage_is_the_area_of_the_caps():
    one_cap = (1 - np.cos(np.radians(30))) / 2
    assert direction_coverage(ring_of_poses(1)) == pytest.approx(one_cap, abs=2e-3)
    six_disjoint = ring_of_poses(6, elevation=0.0)  # 60 degrees apart: caps that touch
    assert direction_coverage(six_disjoint) == pytest.approx(6 * one_cap, abs=5e-3)
    assert direction_coverage(ring_of_poses(1).repeat(3, 1, 1)) == pytest.approx(one_cap, abs=2e-3)


def test_directions_point_into_the_scene():
    poses = ring_of_poses(5, radius=3.0)
    assert torch.allclose(viewing_directions(poses) * 3.0, -poses[:, :, 3], atol=1e-5)


def test_keep_views_cuts_all_that_belongs_to_a_view_and_nothing_else():
    outputs = DataparserOutputs(
        image_filenames=[Path(f"{i}.png") for i in range(4)],
        cameras=pinhole_cameras(ring_of_poses(4)),
        mask_filenames=[Path(f"mask{i}.png") for i in range(4)],
        metadata={
            "depth_filenames": ["d0", "d1", "d2", "d3"],
            "camera_to_worlds": torch.arange(4),
            "semantics": Semantics(["s0", "s1", "s2", "s3"], ["cat"], torch.zeros(1, 3)),
            "points3D_xyz": torch.zeros(4, 3),
        },
        dataparser_scale=2.0,
    )
    kept = keep_views(outputs, [2, 0])
    assert [path.name for path in kept.image_filenames] == ["2.png", "0.png"]
    assert [path.name for path in kept.mask_filenames] == ["mask2.png", "mask0.png"]
    assert torch.equal(kept.cameras.camera_to_worlds, outputs.cameras.camera_to_worlds[[2, 0]])
    assert kept.metadata["depth_filenames"] == ["d2", "d0"]
    assert kept.metadata["camera_to_worlds"].tolist() == [2, 0]
    assert kept.metadata["semantics"].filenames == ["s2", "s0"]
    assert kept.metadata["points3D_xyz"].shape == (4, 3)
    assert kept.dataparser_scale == 2.0
    assert len(outputs.image_filenames) == 4, "the dataparser's outputs are not changed"


def test_protocol_evaluates_every_eighth_test_frame():
    full = [Path(f"test/r_{i}.png") for i in range(200)]
    thinned = full[::8]
    unnumbered = [Path(f"{'abcdefghij'[i]}.png") for i in range(10)]
    assert protocol_test_indices(full, PROTOCOLS["blender-8"]) == list(range(0, 200, 8))
    assert protocol_test_indices(thinned, PROTOCOLS["blender-8"]) == list(range(25))
    assert protocol_test_indices(unnumbered, PROTOCOLS["blender-8"]) == [0, 8]


def test_frames_in_another_order_or_number_are_not_the_published_ones():
    train = [Path(f"train/r_{i}.png") for i in range(100)]
    assert departure_in_training(train, "blender-8") is None
    assert departure_in_training([Path("without_number.png")] * 100, "blender-8") is None
    train[55], train[56] = train[56], train[55]
    assert departure_in_training(train, "blender-4") == (
        "Protocol blender-4: view 55 of this training split is r_56.png, so that these are not the published views: "
        "do not compare the numbers with published ones."
    )
    assert departure_in_training(train, "lego-14-occluded") is None, "it has neither of the two"
    test = [Path(f"test/r_{i}.png") for i in range(0, 200, 8)]
    assert departure_in_evaluation(test[::-1], "blender-8") is None
    for frames, words in ((test[:-1], "has 24, of which 24"), ([*test, Path("r_200.png")], "has 26, of which 25")):
        assert f"This run {words} are among them" in str(departure_in_evaluation(frames, "blender-8"))
    unnumbered = [Path(f"{letter}.png") for letter in "abcdefghijklmnopqrstuvwxy"]
    assert departure_in_evaluation(unnumbered, "blender-8") is None, "25, counted by position"
    assert "has 24, of which 0" in str(departure_in_evaluation(unnumbered[1:], "blender-8"))


def test_the_ports_occluded_protocols_are_other_views_at_another_size():
    port, ours = PROTOCOLS["port-lego-14-occluded"], PROTOCOLS["lego-14-occluded"]
    assert port.train_indices == (2, 5, 10, 40, 52, 53, 69, 78, 83, 85, 90, 94, 96, 97) != ours.train_indices
    assert len(set(PROTOCOLS["port-ship-14-occluded"].train_indices)) == 14
    assert port.resolution == (800, 800) and ours.resolution == (400, 400)


def test_protocols_are_the_published_ones():
    published = SHARED_DATA.parent / "protocol.json"
    if not published.exists():
        pytest.skip(f"the published constants are not on this machine ({published})")
    constants = json.loads(published.read_text())
    for name, protocol in PROTOCOLS.items():
        assert list(protocol.train_indices) == constants[name]["train_indices"]
    assert list(PROTOCOLS["blender-8"].resolution) == constants["blender-8"]["resolution"]
