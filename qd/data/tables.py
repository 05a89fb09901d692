"""Reads CSV and JSONL files: rows with line numbers, and one message with all problems."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from qd.metrics.formatting import bullet_list

TABLE_ENDINGS = (".csv", ".jsonl")

ROWS_IN_MESSAGE = 20

Row = dict[str, str]


class FormatError(Exception):
    """Problem of a file, worded as a predicate: "contains …"."""


@contextmanager
def reading(path: str | Path, name: str) -> Iterator[TextIO]:
    """Opens a file, UTF-8 with or without a byte-order mark, for :func:`csv_rows` or :func:`json_lines`.

    Raises:
        ValueError: The file cannot be read, or the body raises :class:`FormatError`; the message begins with ``name``.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{name} cannot be read ({error}); expected UTF-8 text") from error
    except FormatError as error:
        raise ValueError(f"{name} {error}") from error


def csv_rows(file: TextIO) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """Returns the stripped column names, and each row's first line, counted from 1, with its unchanged cells.

    Empty lines are skipped.
    """
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]

    def rows() -> Iterator[tuple[int, Row]]:
        begin = reader.line_num + 1
        for row in reader:
            if row:
                yield begin, dict(zip(header, row, strict=False))
            begin = reader.line_num + 1

    return header, rows()


def json_lines(file: TextIO) -> Iterator[tuple[int, Any]]:
    """Yields the number, counted from 1, and the value of each line; None for a blank line."""
    for number, line in enumerate(file, start=1):
        try:
            yield number, json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise FormatError(f"is not a JSONL file: line {number}: {error}") from error


def read_table(path: str | Path, what: str, example: Row, required: Sequence[str] = ()) -> list[tuple[int, Row]]:
    """Reads the rows that are not blank, each with the number of its first line.

    Cells are stripped text; JSON nulls and empty cells are left out.

    Args:
        path: CSV file with a header, or JSONL with one object per line; UTF-8.
        what: Kind of file, for error messages.
        example: Example row, for error messages.
        required: Columns that the header of a CSV file must contain.

    Raises:
        ValueError: The file does not exist, has another ending, cannot be read, is malformed, or has no rows.
    """
    path, name = Path(path), f"{what} {str(path)!r}"
    if path.suffix.lower() not in TABLE_ENDINGS or not path.is_file():
        found = "a file of another kind" if path.is_file() else "no file"
        raise ValueError(f"{name}: expected a {' or '.join(TABLE_ENDINGS)} file; found {found}")
    is_csv = path.suffix.lower() == ".csv"
    with reading(path, name) as file:
        rows = list(_checked_csv(file, example, required) if is_csv else _objects(file, example))
    cells = [(line, {key: cell.strip() for key, cell in row.items() if key and cell.strip()}) for line, row in rows]
    if not any(row for _, row in cells):
        raise ValueError(
            f"{name} contains no row; expected {'rows below a header' if is_csv else 'an object per line'}"
        )
    return [(line, row) for line, row in cells if row or not is_csv]


def refuse_bad_rows(path: str | Path, what: str, bad: Sequence[tuple[int, str]], advice: str) -> None:
    """Refuses a file with bad rows.

    Args:
        path: Path of the file.
        what: Kind of file.
        bad: Line number and problem of each bad row.
        advice: What the user can do about it.

    Raises:
        ValueError: There are bad rows; the message lists them by line number.
    """
    if not bad:
        return
    heading = f"{what} {str(path)!r} has {len(bad)} row{'s' if len(bad) > 1 else ''} that cannot be used; {advice}:"
    rows = [f"line {number}: {problem}" for number, problem in sorted(bad)]
    raise ValueError(bullet_list(heading, rows, ROWS_IN_MESSAGE))


def _checked_csv(file: TextIO, example: Row, required: Sequence[str]) -> Iterator[tuple[int, Row]]:
    header, rows = csv_rows(file)
    if missing := [name for name in required if name not in header]:
        raise FormatError(
            f"has no column {', '.join(map(repr, missing))}; present: {', '.join(header) or 'none'}; the first line "
            f"must be a header such as {','.join(example)}"
        )
    return rows


def _objects(file: TextIO, example: Row) -> Iterator[tuple[int, Row]]:
    for number, value in json_lines(file):
        if value is None:
            continue
        if not isinstance(value, dict):
            raise FormatError(f"has no object in line {number}; expected one such as {json.dumps(example)}")
        yield number, {key: str(cell) for key, cell in value.items() if cell is not None}
