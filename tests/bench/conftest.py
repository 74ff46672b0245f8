"""A process that stands in for the training of a cell."""

from __future__ import annotations

import sys

import pytest

from tests.helpers.bench import FAKE_CELL


@pytest.fixture
def fake_cell_command() -> tuple[str, ...]:
    """Not a training: writes a result at once, crashes if its id says crash, waits if it says sleep."""
    return (sys.executable, "-c", FAKE_CELL)
