import os
import subprocess
import sys

import pytest

from dietnerf_ns.utils.openmp import wait_briefly

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", "2000")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
        ({"GOMP_SPINCOUNT": "5"}, ("PASSIVE", "5")),
    ],
)
def test_threads_wait_briefly_unless_the_environment_says_how(monkeypatch, given, expected):
    monkeypatch.setattr(os, "environ", {**given})  # not delenv, which does not remove what is set meanwhile
    wait_briefly()
    assert tuple(os.environ.get(name) for name in NAMES) == expected


@pytest.mark.parametrize("command", ["render", "poses"])
def test_commands_say_so_before_torch_reads_it(command):
    program = f"""
import os, sys
from dietnerf_ns.commands.{command} import main
assert "torch" not in sys.modules
sys.argv = ["command", "--help"]
try:
    main()
finally:
    print("spins", os.environ.get("GOMP_SPINCOUNT"))
"""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    answer = subprocess.run(
        [sys.executable, "-c", program], check=False, env=environment, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0 and answer.stdout.endswith("spins 2000\n"), answer.stderr
