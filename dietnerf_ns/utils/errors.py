"""How the plugin tells a user that something they gave it cannot work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class UserError(SystemExit, ValueError):
    """Wrong input: the message names the value, what is allowed and the way out.

    It is a `ValueError` for callers. Left uncaught it is a `SystemExit`, so that every `ns-*` command, whose entry
    points are nerfstudio's, ends with this one message on stderr and exit status 1 instead of a traceback.
    """


def check_limits(settings: object, limits: Mapping[str, tuple[bool, str]], *, prefix: str = "") -> None:
    """Refuse settings out of their limits.

    Args:
        settings: whose attributes they are.
        limits: by attribute, whether its value is fine, and what is allowed in words.
        prefix: of their flags, as `pipeline.semantic.`.

    Raises:
        UserError: for the first that is not fine.
    """
    for name, (fine, allowed) in limits.items():
        if not fine:
            raise UserError(f"--{prefix}{name.replace('_', '-')} {getattr(settings, name)}: must be {allowed}.")


def make_folder(path: Path, flag: str) -> None:
    """Make a folder for results, and those above it.

    Raises:
        UserError: it cannot be made, or nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be written: {error.strerror}.") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"{flag} {path}: cannot be written: this user has no right to.")


def in_one_line(error: BaseException) -> str:
    """What went wrong, as a reason in a message or a result file."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
