"""Prompts from files: a text file with one prompt a line, or a column of a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

MAX_CHARACTERS = 2_000  # longer "prompts" are a sign of a file that is no prompt list, and no text encoder reads on


def read_prompts(path: str | Path, column: str | None = None) -> list[str]:
    """The prompts of a UTF-8 file in its order; blank lines and cells are skipped.

    Args:
        path: a text file, or a CSV file with a header if ``column`` is given.
        column: the CSV column that holds the prompts.

    Raises:
        ValueError: the file cannot be read, holds no prompt, lacks the column, or has prompts that are too long (the
            first few are named by line).
    """
    try:
        with open(path, encoding="utf-8-sig", newline="" if column else None) as file:
            lines = list(_csv_cells(path, file, column) if column else enumerate(file, start=1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"prompt file {str(path)!r} cannot be read ({error}); expected UTF-8 text") from error
    prompts = [(number, text.strip()) for number, text in lines if text.strip()]
    if not prompts:
        raise ValueError(f"prompt file {str(path)!r} holds no prompt; expected one a {'row' if column else 'line'}")
    long = [f"line {number} ({len(text):,})" for number, text in prompts if len(text) > MAX_CHARACTERS]
    if long:
        raise ValueError(
            f"prompt file {str(path)!r} has prompts of more than {MAX_CHARACTERS:,} characters: "
            f"{', '.join(long[:5])}{f' and {len(long) - 5} more' if len(long) > 5 else ''}; shorten or remove them"
        )
    return [text for _, text in prompts]


def _csv_cells(path: str | Path, file: Iterator[str], column: str) -> Iterator[tuple[int, str]]:
    """Line number (of the row's last line) and cell of each row."""
    rows = csv.DictReader(file)
    present = rows.fieldnames or []
    if column not in present:
        raise ValueError(f"prompt file {str(path)!r} has no column {column!r}; present: {', '.join(present) or 'none'}")
    for row in rows:
        yield rows.line_num, row[column] or ""
