"""Markdown tables and the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from dietnerf_ns.bench.summary import Difference, Spread

NOTHING = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table without the columns that are empty in all rows."""
    rows = [list(row) for row in rows]
    kept = [i for i in range(len(header)) if not rows or any(row[i] != NOTHING for row in rows)]
    lines = [[header[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def count(n: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def format_number(value: float | Decimal | None, digits: int) -> str:
    """The number with so many digits after the point, or a dash for None."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def format_spread(spread: Spread | None, digits: int) -> str:
    """`mean ± standard deviation`, or the mean alone if there is no deviation."""
    if spread is None:
        return NOTHING
    mean = format_number(spread.mean, digits)
    return mean if spread.deviation is None else f"{mean} ± {format_number(spread.deviation, digits)}"


def format_difference(difference: Difference | None, digits: int) -> str:
    """`+mean [low, high] (n = units, pairs)`: the mean difference, its confidence interval and what it is over."""
    if difference is None:
        return NOTHING
    mean, n = f"{difference.mean:+.{digits}f}", f"n = {difference.n}"
    if difference.pairs != difference.n:
        n += f", {count(difference.pairs, 'pair')}"
    if difference.half_width is None:
        return f"{mean} ({n})"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    return f"{mean} [{low:+.{digits}f}, {high:+.{digits}f}] ({n})"
