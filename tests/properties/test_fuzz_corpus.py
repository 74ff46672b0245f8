"""The inputs that tools/fuzz.py starts from, which include those it found errors with."""

import pytest

from tools.fuzz import CORPUS, TARGETS, check

INPUTS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


def test_every_target_has_inputs_and_every_input_a_target():
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_is_read_or_gives_one_line(path, tmp_path):
    """A target ends with a value or with a `UserError`, never with another error."""
    error = check(path.parent.name, path.read_bytes(), tmp_path)
    assert error is None, f"{error!r}"
