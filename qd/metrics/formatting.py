"""Markdown tables and formatted numbers for reports, cards and pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qd.metrics.bootstrap import Interval


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table without a final line break.

    Example:
        >>> print(markdown_table(["a", "b"], [["1", "2"]]))
        | a | b |
        | --- | --- |
        | 1 | 2 |
    """
    columns = list(columns)
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *rows])


def first_items(items: Sequence[object], limit: int, separator: str = ", ") -> str:
    """The first items of a message, and the number of the others.

    Example:
        >>> first_items([3, 5, 8], 2)
        '3, 5 and 1 more'
    """
    shown = separator.join(map(str, items[:limit]))
    return f"{shown} and {len(items) - limit:,} more" if len(items) > limit else shown


def bullet_list(heading: str, items: Sequence[str], limit: int) -> str:
    """The heading, the first items on lines of their own, and the number of the others.

    Example:
        >>> print(bullet_list("2 rows are wrong:", ["line 3", "line 5"], 1))
        2 rows are wrong:
          • line 3
          • and 1 more
    """
    more = [f"and {len(items) - limit:,} more"] if len(items) > limit else []
    return "\n".join([heading, *(f"  • {item}" for item in (*items[:limit], *more))])


def markdown_interval(interval: Interval, digits: int = 3) -> str:
    """Returns text such as ``0.320 [0.290, 0.350]``."""
    return f"{interval.mean:.{digits}f} [{interval.lo:.{digits}f}, {interval.hi:.{digits}f}]"


def format_duration(seconds: float) -> str:
    """Returns text such as ``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
