"""Markdown tables and numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dietnerf_ns.bench.summary import Difference, Spread

NOTHING = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns in which no row has anything are left out."""
    rows = [list(row) for row in rows]
    kept = [i for i in range(len(header)) if not rows or any(row[i] != NOTHING for row in rows)]
    lines = [[header[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def count(n: int, thing: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def number(value: float | None, digits: int) -> str:
    """The number, or a dash for none."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def spread_in_words(spread: Spread | None, digits: int) -> str:
    """Mean ± standard deviation, the latter if there is one."""
    if spread is None or spread.deviation is None:
        return number(spread and spread.mean, digits)
    return f"{number(spread.mean, digits)} ± {number(spread.deviation, digits)}"


def difference_in_words(difference: Difference | None, digits: int) -> str:
    """Mean difference with its interval, and the number of independent units."""
    if difference is None:
        return NOTHING
    mean, n = f"{difference.mean:+.{digits}f}", f"n = {difference.n}"
    if difference.half_width is None:
        return f"{mean} ({n})"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    return f"{mean} [{low:+.{digits}f}, {high:+.{digits}f}] ({n})"
