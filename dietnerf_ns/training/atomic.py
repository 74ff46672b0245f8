"""Files that are there completely or not at all, also after a crash of the program or of the machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, unfinished: Path | None = None) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end, when it is on the disk. After an error nothing has changed.

    Args:
        path: the file to write.
        unfinished: its name until then, in the same folder; by default the name with a dot in front.
    """
    unfinished = unfinished or path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_text(path: Path, text: str, encoding: str | None = None) -> None:
    """`Path.write_text` by way of `replacing`."""
    with replacing(path) as file:
        file.write(text.encode(encoding or "utf8"))


def _flush_folder(folder: Path) -> None:
    """Bring the folder's list of names to the disk, where the system can do so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
