"""tools/test.sh up to where it would install the environment, with stand-ins for the system's programs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.markdown import ROOT

LIBRARIES = ["ffmpeg", "libusb-1.0-0", "libgl1", "libgomp1", "libegl1", "libx11-6"]
CHROMIUM = ["chromium", "chromium-driver"]
UBUNTU, DEBIAN = "Candidate: (none)", "Candidate: 120.0"


@pytest.fixture
def checkout(tmp_path):
    """A folder with what the script reads before it installs anything."""
    for path in ("tools/test.sh", "pyproject.toml", "dietnerf_ns/__init__.py"):
        (tmp_path / "checkout" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / "checkout" / path)
    return tmp_path / "checkout"


def run(checkout, *arguments, candidates=DEBIAN, installed=(), user=0):
    """What the script prints, and the packages that it installs."""
    programs, log = checkout.parent / "programs", checkout.parent / "log"
    programs.mkdir(exist_ok=True)
    log.write_text("")
    for name, lines in {
        "id": f"echo {user}",
        "dpkg": f'for name in "${{@:2}}"; do [[ " {" ".join(installed)} " = *" $name "* ]] || exit 1; done',
        "apt-get": f'echo "$@" >>{log}',
        "apt-cache": f'for name in "${{@:2}}"; do echo "  {candidates}"; done',
        "python3": '[ "$1" != -m ] || exit 1; echo Python 3.11.2',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{lines}\n")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(checkout.parent / "cache")}
    command = ["bash", str(checkout / "tools" / "test.sh"), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    installs = [line.split() for line in log.read_text().splitlines() if line.startswith("install")]
    return result.stderr, [word for line in installs for word in line[1:] if not word.startswith("-")]


def test_chromium_is_installed_where_it_is_a_package(checkout):
    said, packages = run(checkout)
    assert packages == LIBRARIES + CHROMIUM and "browser" not in said
    assert run(checkout, installed=LIBRARIES + CHROMIUM)[1] == run(checkout, "--fast")[1] == []


def test_chromium_is_left_out_where_it_is_none(checkout):
    said, packages = run(checkout, candidates=UBUNTU)
    assert packages == LIBRARIES
    assert said.startswith("apt-get has no package of Chromium here: without it the test in a browser is skipped.\n")
    said, packages = run(checkout, candidates=UBUNTU, installed=LIBRARIES)
    assert packages == [] and "Installing into" in said


def test_without_root_the_packages_are_named(checkout):
    for candidates, packages in ((DEBIAN, LIBRARIES + CHROMIUM), (UBUNTU, LIBRARIES)):
        said, installed = run(checkout, candidates=candidates, user=1000)
        assert installed == [] and f"install {' '.join(packages)} first" in said


def test_another_version_is_installed_into_the_same_environment(checkout):
    environment = Path(re.findall(r"Installing into (\S+)", run(checkout, "--fast")[0])[0])
    (environment / "bin").mkdir(parents=True)
    (environment / "checkout").write_text("another checkout")
    calls = environment / "calls"
    for name, status in {"pip": 0, "ruff": 0, "python": 1}.items():
        (environment / "bin" / name).write_text(f'#!/bin/bash\necho {name} "$@" >>{calls}\nexit {status}\n')
        (environment / "bin" / name).chmod(0o755)
    installs = []
    for version in ("0.2.0", "0.2.0", "0.3.0", "0.3.0"):
        (checkout / "dietnerf_ns" / "__init__.py").write_text(f'__version__ = "{version}"\n')
        calls.write_text("")
        run(checkout, "--fast")
        installs.append(calls.read_text().count("pip install --quiet --no-deps --editable ."))
    assert installs == [1, 0, 1, 0]
