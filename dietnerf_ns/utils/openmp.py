"""How OpenMP's threads wait for each other. To be set before torch is imported, which is when it is read."""

from __future__ import annotations

import os

SPINS = 2000
"""Rounds that a thread waits actively before it sleeps, a few microseconds.

On two cores, an orbit took 1.8 times as long with none, because threads that sleep at once are woken up on one core
again and again. Beside another program it took 1.4 times as long as with none, and with 20,000 rounds five times."""


def wait_briefly() -> None:
    """Let threads wait actively for a moment only; what the user's environment says is kept."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
