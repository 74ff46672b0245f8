"""Result files: there completely or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Any

from dietnerf_ns.utils.errors import UserError, writing


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step, so that a reader never sees half of it."""
    with atomic_output(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n")


@contextlib.contextmanager
def atomic_output(output: Path) -> Iterator[Path]:
    """Give a hidden path beside the output to write to, a file or a folder.

    It replaces the output when the block ends without an error. Otherwise it is removed, and the output is unchanged.
    An older folder is moved aside and removed last; if the process is killed in between, the next call puts it back.
    """
    output = output.resolve()
    unfinished, older = (output.with_name(f".{state}-{output.name}") for state in ("unfinished", "older"))
    _tidy(output, unfinished, older)
    try:
        yield unfinished
        if unfinished.is_dir() and output.exists():
            output.replace(older)
        if unfinished.exists():
            unfinished.replace(output)
    finally:
        _tidy(output, unfinished, older)


def _tidy(output: Path, unfinished: Path, older: Path) -> None:
    """Leave nothing but the output: the new one if it is in its place, otherwise the older one."""
    if older.exists() and not output.exists():
        older.replace(output)
    _remove(unfinished)
    _remove(older)


def check_writable(output: Path, flag: str) -> None:
    """Check before the work that an output can be written, and make the folder that contains it.

    Raises:
        UserError: it cannot be written.
    """
    if output.resolve().is_mount():
        raise UserError(f"{flag} {output}: another file system is mounted there; name a file or folder inside it.")
    with writing(f"{flag} {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(output) as unfinished:
            unfinished.touch()
            unfinished.unlink()


def hashes_of_files(folder: Path) -> dict[str, str]:
    """A hash of each file in a folder and below it, by its path relative to the folder; without hidden files, which
    file managers write."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): _hash_of(path) for path in files}


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
