"""Result files: there completely or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dietnerf_ns.utils.errors import UserError


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step, so that a reader never sees half of it."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(path)


@contextlib.contextmanager
def atomic_output(output: Path) -> Iterator[Path]:
    """Give a hidden path beside the output to write to, a file or a folder.

    It replaces the output when the block ends without an error. Otherwise it is removed, and the output is unchanged.
    """
    output = output.resolve()
    unfinished = output.with_name(f".unfinished-{output.name}")
    _remove(unfinished)
    try:
        yield unfinished
        if unfinished.is_dir():
            _remove(output)
        if unfinished.exists():
            unfinished.replace(output)
    finally:
        _remove(unfinished)


def check_writable(output: Path, flag: str) -> None:
    """Check before the work that an output can be written, and make the folder that contains it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(output) as unfinished:
            unfinished.touch()
            unfinished.unlink()
    except OSError as error:
        raise UserError(f"{flag} {output}: cannot be written: {error.strerror}.") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
