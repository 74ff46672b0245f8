"""Fixtures of more than one test file: the shipped scene, its pipeline, and one real training shared by all tests."""

from __future__ import annotations

import copy
import functools
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

# Threads that spin while they wait slow down the other processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

from jaxtyping import install_import_hook

import tests.helpers.shape_checks  # noqa: F401  the hook does not import it itself

# Before anything imports the package, as nerfstudio does when it looks for methods.
install_import_hook("dietnerf_ns", "tests.helpers.shape_checks.check")

import pytest
import torch
from filelock import FileLock

from dietnerf_ns.methods import TINY_SCENE, dietnerf_tiny
from dietnerf_ns.pipeline import DietNeRFPipelineConfig
from tests.helpers.commands import ns


@dataclass(frozen=True)
class TrainedRun:
    """What a real `ns-train` left behind. nerfstudio's paths are relative: commands run in the same `folder`."""

    folder: Path
    run: Path

    @property
    def load(self) -> list[object]:
        return ["--load-config", self.run / "config.yml"]


@pytest.fixture(scope="session")
def trained_tiny(tmp_path_factory, worker_id) -> TrainedRun:
    """The README's first command: `ns-train dietnerf-tiny`, to its end, once for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "trained_tiny"
    complete = folder / "complete"
    with FileLock(f"{folder}.lock"):
        if not complete.exists():
            folder.mkdir(exist_ok=True)
            ns("ns-train", "dietnerf-tiny", "--timestamp", "run", cwd=folder)
            complete.touch()
    return TrainedRun(folder, folder / "outputs" / "unnamed" / "dietnerf-tiny" / "run")


@pytest.fixture
def tiny_pipeline_config() -> DietNeRFPipelineConfig:
    """dietnerf-tiny's pipeline; a copy, because tests change it."""
    return copy.deepcopy(dietnerf_tiny.config.pipeline)


@pytest.fixture
def tiny_scene() -> Path:
    return TINY_SCENE


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test depends on another machine. Programs that a test starts are not held to it."""
    resolve = socket.getaddrinfo

    def resolve_this_machine(host, *arguments, **options):
        if host not in (None, "localhost", socket.gethostname()) and not is_address(host):
            raise socket.gaierror(f"{host}: tests use no network")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_this_machine)


def is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    """Tests of the shared training are slow."""
    for item in items:
        if "trained_tiny" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`, tests that share something expensive run in one process and first, so that no process waits.

    pytest-xdist 3.8 has marks for this, but does not see them with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    @functools.cache
    def group(file: str) -> str | None:
        text = (config.rootpath / file).read_text()
        if "trained_tiny" in text:
            return "trained_tiny"
        return file if 'scope="module"' in text else None

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid.partition("::")[0]) or nodeid

    return GroupScheduling(config, log)
