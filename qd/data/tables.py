"""Rows of a CSV or JSONL file with their line numbers, and all that is wrong with them in one message."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

TABLE_ENDINGS = (".csv", ".jsonl")
SHOWN = 20  # so many bad rows are named in an error, and the others are counted

Row = dict[str, str]


def read_table(path: str | Path, what: str) -> list[tuple[int, Row]]:
    """The rows that are not blank, each with its line number (the last one's, where a CSV row has several).

    Cells are stripped text; JSON's null and empty cells are left out.

    Args:
        path: a CSV file with a header, or JSONL with one object a line; UTF-8.
        what: the file is, for the error messages.

    Raises:
        ValueError: it does not exist, is of another kind, cannot be read, is malformed, or holds no row.
    """
    path = Path(path)
    if path.suffix.lower() not in TABLE_ENDINGS or not path.is_file():
        found = "a file of another kind" if path.is_file() else "no file"
        raise ValueError(f"{what} {str(path)!r}: expected a {' or '.join(TABLE_ENDINGS)} file; found {found} there")
    reader = _csv_rows if path.suffix.lower() == ".csv" else _jsonl_rows
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{what} {str(path)!r} cannot be read ({error}); expected UTF-8 text") from error
    except ValueError as error:
        raise ValueError(f"{what} {str(path)!r}, {error}") from error
    if not rows:
        raise ValueError(f"{what} {str(path)!r} holds no row")
    return rows


def refuse_bad_rows(path: str | Path, what: str, bad: Sequence[tuple[int, str]], mend: str) -> None:
    """Raises ``ValueError`` that names the bad rows, each by its line number, if there are any.

    Args:
        path: of the file. what: it is.
        bad: line numbers, and what is wrong there.
        mend: what to do about it.
    """
    if not bad:
        return
    lines = [f"  • line {number}: {problem}" for number, problem in sorted(bad)[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  • and {len(bad) - SHOWN} more")
    raise ValueError("\n".join([f"{what} {str(path)!r} has {len(bad)} rows that cannot be used; {mend}:", *lines]))


def _csv_rows(file: Iterator[str]) -> Iterator[tuple[int, Row]]:
    rows = csv.DictReader(file)
    rows.fieldnames = [(name or "").strip() for name in rows.fieldnames or []]
    for row in rows:
        cells = {key: cell.strip() for key, cell in row.items() if key and isinstance(cell, str) and cell.strip()}
        if cells:
            yield rows.line_num, cells


def _jsonl_rows(file: Iterator[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}, is no JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f'line {number}, is no object such as {{"audio": "a.wav", "rating": 4}}')
        cells = {key: str(value).strip() for key, value in row.items() if value is not None}
        yield number, {key: cell for key, cell in cells.items() if cell}
