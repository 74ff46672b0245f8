"""The fast tests on the newest libraries, and on the oldest of those that matter most, that pyproject.toml allows.

nox                                    everything; 5 GB for each session
nox -s "tests-3.11(lowest)"            one session
nox -s "tests-3.12(newest)" -- tests/semantic
"""

import nox

nox.options.default_venv_backend = "uv|virtualenv"

# Lower bounds in pyproject.toml, and the release of torchvision that belongs to that torch.
LOWEST = ("torch==2.6.0", "torchvision==0.21.0", "torchmetrics[image]==1.0.1", "open-clip-torch==2.30.0")
FAST = "not slow and not browser and not cuda"


@nox.session(python=["3.11", "3.12"])
@nox.parametrize("libraries", [nox.param(LOWEST, id="lowest"), nox.param((), id="newest")])
def tests(session: nox.Session, libraries: tuple[str, ...]) -> None:
    """What `tools/test.sh --fast` runs, without lint and format."""
    session.install("--editable", ".[test]", *libraries)
    session.run("python", "-m", "pytest", "-n", "2", "-m", FAST, *session.posargs, env={"CI": "true"})
