"""Who can reach the viewer."""

import socket

import pytest
import tyro
import viser
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

from dietnerf_ns.methods import dietnerf, dietnerf_tiny, dietnerf_vanilla

METHODS = {spec.config.method_name: spec.config for spec in (dietnerf, dietnerf_vanilla, dietnerf_tiny)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(host: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex((host, port)) == 0


@pytest.mark.parametrize("method", METHODS)
def test_the_viewer_listens_to_this_machine_alone_unless_told_otherwise(method):
    assert METHODS[method].viewer.websocket_host == "127.0.0.1"
    opened = tyro.cli(AnnotatedBaseConfigUnion, args=[method, "--viewer.websocket-host", "0.0.0.0"])
    assert opened.viewer.websocket_host == "0.0.0.0"


@pytest.mark.parametrize("host, elsewhere", [("127.0.0.1", False), ("0.0.0.0", True)])
def test_other_addresses_of_this_machine_answer_only_if_the_viewer_is_opened(host, elsewhere):
    port = free_port()
    server = viser.ViserServer(host=host, port=port)
    try:
        assert answers("127.0.0.1", port), "the address of the printed link"
        assert answers("localhost", port), "where a tunnel leads to"
        assert answers("127.0.0.2", port) == elsewhere
    finally:
        server.stop()
