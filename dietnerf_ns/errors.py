"""How the plugin tells a user that something they gave it cannot work."""


class UserError(SystemExit, ValueError):
    """Wrong input: the message names the value, what is allowed and the way out.

    It is a `ValueError` for callers. Left uncaught it is a `SystemExit`, so that every `ns-*` command, whose entry
    points are nerfstudio's, ends with this one message on stderr and exit status 1 instead of a traceback.
    """


def in_one_line(error: BaseException) -> str:
    """What went wrong, as a reason in a message or a result file."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
