"""A contender that takes milliseconds: dietnerf-tiny on the shipped scene, small."""

import pytest

from dietnerf_ns.bench.speed.contender import WITHOUT_LSC, Contender, Data
from dietnerf_ns.methods import TINY_SCENE

SMALL = {
    "pipeline.model.plane_resolution": 8,
    "pipeline.model.num_nerf_samples_per_ray": 8,
    "pipeline.semantic.resolution": 16,
    "pipeline.semantic.every": 3,
}


@pytest.fixture
def small() -> Contender:
    return Contender("ours", "dietnerf-tiny", 32, SMALL)


@pytest.fixture
def small_without_lsc() -> Contender:
    return Contender("plain", "dietnerf-tiny", 32, SMALL | WITHOUT_LSC)


@pytest.fixture
def data() -> Data:
    return Data(str(TINY_SCENE), scale=0.4)
