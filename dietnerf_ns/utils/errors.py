"""Errors that a user caused and can correct: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

READ_ERRORS = (OSError, AssertionError, LookupError, ValueError, TypeError, ArithmeticError, RuntimeError)
"""What nerfstudio's dataparsers and loaders raise when they cannot read what they are given."""

MOST_NAMES = 5
"""Files that a message names."""


class UserError(SystemExit, ValueError):
    """Wrong input. The message names the value, what is allowed and what to do.

    It is a `ValueError` for callers. Uncaught it is a `SystemExit`, so that every `ns-*` command, whose entry points
    are nerfstudio's, ends with this one message on stderr and exit status 1 instead of a traceback.
    """


class SettingError(UserError):
    """An impossible value of a setting, raised where the value is used and the flag's full name is not known.

    `flags_under` completes the name.

    Args:
        setting: attribute of the configuration, such as `clip_pretrained`.
        value: the value that was given.
        reason: what is wrong with it and what is allowed, as the rest of a sentence.
    """

    def __init__(self, setting: str, value: object, reason: str):
        self.setting, self.value, self.reason = setting, value, reason
        super().__init__(self.message(prefix=""))

    def message(self, *, prefix: str, separator: str = "-") -> str:
        """The message with the setting as it is typed.

        Args:
            prefix: what precedes the setting's name, such as `--pipeline.semantic.`.
            separator: between the words of a name: a dash on the command line, an underscore in files.
        """
        return f"{prefix}{self.setting.replace('_', separator)} {self.value}: {self.reason}"


@contextlib.contextmanager
def flags_under(prefix: str, *, separator: str = "-") -> Iterator[None]:
    """Turn a `SettingError` raised inside into a `UserError` that names the flag, or the key of a file.

    Args:
        prefix: of the flags, such as `--pipeline.semantic.`.
        separator: between the words of a name; see `SettingError.message`.
    """
    try:
        yield
    except SettingError as error:
        raise UserError(error.message(prefix=prefix, separator=separator)) from error


def check_limits(settings: object, limits: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse settings outside their limits.

    Args:
        settings: the configuration that has the attributes.
        limits: for each attribute whether its value is allowed, and which values are, in words.

    Raises:
        SettingError: for the first value that is not allowed.
    """
    for name, (is_allowed, allowed) in limits.items():
        if not is_allowed:
            raise SettingError(name, getattr(settings, name), f"must be {allowed}.")


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn an error of writing inside, such as that of a full disk, into a `UserError`.

    Args:
        what: what is written: a flag with its value, or a file.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: cannot be written: {error.strerror or error}.") from error


@contextlib.contextmanager
def system_errors_in_one_line() -> Iterator[None]:
    """Turn what the system refuses inside, such as to look into a folder of another user, into a `UserError`.

    To be put around a whole command, because in Python 3.11 even `Path.exists` can raise such an error.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise UserError(in_one_line(error)) from error
        raise UserError(f"{error.filename}: cannot be read or written: {error.strerror or error}.") from error


def make_folder(path: Path, flag: str) -> None:
    """Make a folder for results, with its parents.

    Raises:
        UserError: it cannot be made, or it cannot be written to.
    """
    with writing(f"{flag} {path}"):
        path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise UserError(f"{flag} {path}: cannot be written: permission denied.")


def first_names(paths: Sequence[Path]) -> str:
    """The names of the first files, without their folders, and how many more there are."""
    more = f" and {len(paths) - MOST_NAMES} more" if len(paths) > MOST_NAMES else ""
    return ", ".join(path.name for path in paths[:MOST_NAMES]) + more


def in_one_line(error: BaseException) -> str:
    """The error's type and message, as a reason in a message or a result file."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
