"""Result files: there completely or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Any

from dietnerf_ns.utils.errors import UserError, writing

OF_FILE_MANAGERS = (".DS_Store", ".directory", "Thumbs.db", "desktop.ini")
"""Files that come into a folder when somebody looks at it."""


def composed(name: str) -> str:
    """The name with each accented letter as one character, as most systems write it; a Mac's archives have two."""
    return unicodedata.normalize("NFC", name)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step, so that a reader never sees half of it."""
    with atomic_output(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n")


@contextlib.contextmanager
def atomic_output(output: Path, *, replaces: bool = True) -> Iterator[Path]:
    """Give a hidden path beside the output to write to, a file or a folder, which is this process's own.

    It replaces the output when the block ends without an error. Otherwise it is removed, and the output is unchanged.
    An older folder is moved aside and removed last; if the process is killed in between, the next call puts it back.

    Args:
        output: its folder exists.
        replaces: False for a folder that is the same whoever writes it. Then the first one that is complete stays,
            because others may be reading it.

    Raises:
        OSError: nothing was written to the path, or it cannot take the output's place.
    """
    output = output.resolve()
    _tidy_after_killed(output)
    unfinished, older = _beside(output, os.getpid())
    try:
        yield unfinished
        if replaces and unfinished.is_dir() and output.exists():
            output.replace(older)
        try:
            unfinished.replace(output)
        except OSError:
            if replaces or not output.exists():
                raise
    finally:
        _tidy(output, unfinished, older)


def _beside(output: Path, process: int) -> tuple[Path, Path]:
    """Where a process writes the new output, and where it moves an older folder."""
    unfinished, older = (output.with_name(f".{state}-{process}-{output.name}") for state in ("unfinished", "older"))
    return unfinished, older


def _tidy_after_killed(output: Path) -> None:
    """Tidy what processes left that no longer run. Others may be at work on the same output."""
    name = re.compile(rf"\.(?:unfinished|older)-(\d{{1,9}})-{re.escape(output.name)}")
    processes = {int(match[1]) for path in output.parent.glob(".*") if (match := name.fullmatch(path.name))}
    for process in processes:
        if process == os.getpid() or not _is_running(process):
            _tidy(output, *_beside(output, process))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's
    return True


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
    place = output.resolve()
    if place.is_mount():
        raise UserError(f"{flag} {output}: another file system is mounted there; name a file or folder inside it.")
    if Path.cwd().is_relative_to(place):
        raise UserError(
            f"{flag} {output}: the folder is replaced as a whole, and cannot be the present one; start the command "
            "outside it, or name another folder."
        )
    folders = (Path(folder) for folder, _, _ in os.walk(place))
    protected = next((folder for folder in folders if not os.access(folder, os.W_OK | os.X_OK)), None)
    if protected is not None:
        raise UserError(f"{flag} {output}: cannot be replaced: {protected} is write-protected.")
    with writing(f"{flag} {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
        _tidy_after_killed(place)
        unfinished, _ = _beside(place, os.getpid())
        unfinished.touch()
        unfinished.unlink()


def readable(name: str) -> str:
    """A file's name with escapes for bytes that are not UTF-8, which plots and other programs do not take."""
    return os.fsencode(name).decode(errors="backslashreplace")


def hashes_of_files(folder: Path) -> dict[str, str]:
    """A hash of each file in a folder and below it, by its path relative to the folder; without hidden files and those
    that file managers write."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): _hash_of(path) for path in files if path.name not in OF_FILE_MANAGERS}


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
