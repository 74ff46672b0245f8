"""Cells on a Ray cluster of two nodes on this machine. The cells are fake."""

import contextlib
import json
import signal
import sys

import pytest

from dietnerf_ns.bench.ray_engine import RayEngine, share_of
from dietnerf_ns.bench.runner import run_missing
from dietnerf_ns.utils.errors import UserError
from tests.helpers.bench import cell, started
from tests.helpers.waiting import wait_until


@pytest.fixture(scope="module")
def two_nodes():
    """Address of a cluster of a head and one more node, which run one cell each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_cells_run_on_the_cluster_and_crash_alone(two_nodes, tmp_path, fake_cell_command, capsys):
    cells = [cell("good"), cell("crash"), cell("better")]
    engine, handler = RayEngine(1, two_nodes, fake_cell_command), signal.getsignal(signal.SIGTERM)
    assert run_missing(cells, tmp_path, engine) == [cells[1]]
    assert signal.getsignal(signal.SIGTERM) == handler, "not Ray's, with which the report would end without a word"
    assert sorted(started(tmp_path)) == ["better", "crash", "good"]
    assert json.loads((tmp_path / "cells" / "good" / "result.json").read_text()) == {"threads": "1"}
    assert "no such luck" in capsys.readouterr().err


@pytest.mark.slow
def test_interruption_ends_the_cells_on_the_cluster(two_nodes, tmp_path, fake_cell_command):
    import psutil

    def sleeping():
        """Processes of this test's cell; other tests may have such a cell at the same time."""
        everything = psutil.process_iter(["cmdline", "cwd"])
        here = [p for p in everything if p.info["cwd"] == str(tmp_path)]
        return [p for p in here if str(p.info["cmdline"]).endswith("'cells/sleep']")]

    cells = [cell("good"), cell("sleep")]
    with contextlib.closing(RayEngine(1, two_nodes, fake_cell_command).run(cells, tmp_path)) as ended:
        next(ended)
        wait_until(sleeping, "the fake cell has started", seconds=30)
    assert not sleeping()


@pytest.mark.slow
def test_a_signal_interrupts_as_it_does_without_ray(two_nodes, tmp_path, fake_cell_command):
    """Ray has a handler of its own for SIGTERM, with which the program would end without a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        engine = RayEngine(1, two_nodes, fake_cell_command)
        with pytest.raises(KeyboardInterrupt), contextlib.closing(engine.run([cell("good")] * 2, tmp_path)) as ended:
            next(ended)
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("variable, address", [(None, "local"), ("auto", "auto")])
def test_without_an_address_cells_stay_on_this_machine(tmp_path, monkeypatch, variable, address):
    class Started(Exception):
        pass

    def init(address, **_):
        raise Started(address)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    engine = RayEngine(1)
    monkeypatch.setattr(engine._ray, "init", init)
    with pytest.raises(Started, match=address):
        next(engine.run([cell("good")], tmp_path))


def node(alive=True, **resources):
    """As `ray.nodes()` describes a machine."""
    return {"Alive": alive, "Resources": resources}


GONE = node(alive=False)
HEAD_ALONE = node(memory=1e9)
SMALL, BIG = node(CPU=8.0), node(CPU=64.0)
ONE_GPU, FOUR_GPUS = node(CPU=16.0, GPU=1.0), node(CPU=32.0, GPU=4.0)


@pytest.mark.parametrize(
    "nodes, jobs, cpus, gpus",
    [
        ([SMALL, BIG], 2, 4, 0),
        ([GONE, HEAD_ALONE, BIG], 2, 32, 0),
        ([GONE, HEAD_ALONE, SMALL, ONE_GPU, FOUR_GPUS], 2, 8, 0.5),
        ([FOUR_GPUS], 2, 16, 1),
        ([FOUR_GPUS], 5, 6, 0.5),
        ([SMALL], 100, 1, 0),
    ],
)
def test_a_cells_share_of_the_machines_that_run_cells(nodes, jobs, cpus, gpus):
    assert share_of(nodes, jobs) == {"num_cpus": cpus, "num_gpus": gpus}


def test_a_cluster_without_cpus_is_rejected():
    with pytest.raises(UserError, match="no machine of the cluster has CPUs"):
        share_of([GONE, HEAD_ALONE], 1)


def test_without_ray_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install "dietnerf-ns\[ray\]"'):
        RayEngine(1)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_an_address_without_a_cluster_is_rejected_at_once(address):
    with pytest.raises(UserError, match=f"--ray-address {address}: nothing answers there"):
        RayEngine(1, address)


def test_the_address_of_the_environment_is_checked_as_well(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match="RAY_ADDRESS 127.0.0.1:1: nothing answers there"):
        RayEngine(1)
