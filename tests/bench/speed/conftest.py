"""A candidate that takes milliseconds: dietnerf-tiny on the shipped scene, small."""

import pytest

from dietnerf_ns.bench.speed.candidate import WITHOUT_LSC, Candidate, Data
from dietnerf_ns.methods import TINY_SCENE

SMALL = {
    "pipeline.model.plane_resolution": 8,
    "pipeline.model.num_nerf_samples_per_ray": 8,
    "pipeline.semantic.resolution": 16,
    "pipeline.semantic.every": 3,
}


@pytest.fixture
def small() -> Candidate:
    return Candidate("ours", "dietnerf-tiny", 32, SMALL)


@pytest.fixture
def small_without_lsc() -> Candidate:
    return Candidate("plain", "dietnerf-tiny", 32, SMALL | WITHOUT_LSC)


@pytest.fixture
def data() -> Data:
    return Data(str(TINY_SCENE), scale=0.4)
