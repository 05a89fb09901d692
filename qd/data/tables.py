"""Reads CSV, TSV and JSONL files: rows with line numbers, and one message with all problems."""

from __future__ import annotations

import codecs
import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qd.metrics.formatting import bullet_list, first_items

DELIMITERS = {"csv": ",", "tsv": "\t"}
TABLE_KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl"}
"""Format of a table by the ending of its file. A ``.json`` file is read only if it has one JSON value per line."""
TABLES = ".csv, .tsv or .jsonl"
"""Endings of tables, for messages."""

ROWS_IN_MESSAGE = 20
MAX_BYTES = 2**27
"""Largest file: a million rows of 128 bytes."""
MAX_LINE = 2**17
"""Most characters of a line, and of a cell (the limit of the module ``csv``)."""
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32 text", codecs.BOM_UTF32_BE: "UTF-32 text", codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text", b"PK\x03\x04": "a ZIP archive or a spreadsheet", b"\x1f\x8b": "a gzip archive",
}  # fmt: skip
"""First bytes of files that are often mistaken for UTF-8 text; UTF-32 before UTF-16, whose mark it begins with."""

Row = dict[str, str]


class FormatError(Exception):
    """Problem of a file, worded as a predicate: "contains …"."""


@contextmanager
def reading(path: str | Path, name: str) -> Iterator[Iterator[str]]:
    """Opens a UTF-8 file, with or without a byte-order mark, and gives its lines with their line ends.

    Raises:
        ValueError: The file cannot be read, is no regular file, is larger than :data:`MAX_BYTES`, has a line longer
            than :data:`MAX_LINE`, or is not UTF-8 text; or the body raises :class:`FormatError`. The message begins
            with ``name``.
    """
    try:
        # A pipe without a writer would block `open`, and a device may never end.
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="", opener=_open_file) as file:
            yield _lines(file)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror or error}); expected a UTF-8 text file") from error
    except FormatError as error:
        raise ValueError(f"{name} {error}") from error


def _open_file(path: str, flags: int) -> int:
    """Opens a regular file of at most :data:`MAX_BYTES` whose first bytes can be text; refuses any other one."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise FormatError("cannot be read: it is a folder; expected a UTF-8 text file")
        if not stat.S_ISREG(status.st_mode):
            raise FormatError("cannot be read: it is a device or a pipe; write its content to a file first")
        if status.st_size > MAX_BYTES:
            raise FormatError(f"has {status.st_size:,} bytes; expected at most {MAX_BYTES:,}: use a part of it")
        begin = os.pread(descriptor, 4, 0)
        kind = next((kind for mark, kind in _MARKS.items() if begin.startswith(mark)), None)
        if kind is None and b"\0" in os.pread(descriptor, 64, 0):
            kind = "UTF-16 text or no text at all: it contains zero bytes"
        if kind:
            raise FormatError(f"cannot be read: it is {kind}; expected UTF-8 text: save it as UTF-8")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lines(file: Any) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise FormatError(f"has more than {MAX_LINE:,} characters in line {number}; expected shorter lines")
        if "\0" in line:
            raise FormatError(f"cannot be read: line {number} contains a zero byte; expected UTF-8 text")
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = bytes([ord(line[error.start]) - 0xDC00])
            meant = byte.decode("cp1252", "replace")
            raise FormatError(
                f"cannot be read: line {number} has the byte 0x{byte.hex().upper()}, which is no UTF-8 ({meant!r} in "
                "Windows-1252, the likely encoding); expected UTF-8 text: save it as UTF-8"
            ) from None
        yield line


def csv_rows(lines: Iterator[str], delimiter: str = ",") -> tuple[list[str], list[tuple[int, Row]]]:
    """Returns the stripped column names, and each row's first line, counted from 1, with its unchanged cells.

    Empty lines are skipped.

    Raises:
        FormatError: The header names a column twice or has another delimiter, a quotation mark is not closed or not
            doubled, or rows have more or fewer cells than the header; the message names the lines.
    """
    records = _records(lines, delimiter)
    begin, names = next(((line, cells) for line, cells in records if "".join(cells).strip()), (1, []))
    header = [name.strip() for name in names]
    if twice := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
        raise FormatError(f"names the column {twice[0]!r} twice in its header (line {begin}); rename or remove one")
    other = next((mark for mark in ";\t," if mark != delimiter and len(header) == 1 and mark in header[0]), None)
    if other:
        raise FormatError(
            f"separates its columns by {other!r} in line {begin}; expected {delimiter!r}: "
            + ("save it with commas, or name it .tsv" if other == "\t" else "save it with that delimiter")
        )
    rows, bad = [], []
    for line, cells in records:
        if len(cells) == len(header):
            rows.append((line, dict(zip(header, cells, strict=True))))
        elif "".join(cells).strip():
            bad.append((line, len(cells)))
    if bad:
        listed = first_items([f"line {line} ({count})" for line, count in bad], ROWS_IN_MESSAGE)
        raise FormatError(
            f"has rows whose number of cells is not that of the header, {len(header)}: {listed}; put a text that "
            f"contains {delimiter!r} in quotation marks"
        )
    return header, rows


def _records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields each record's first line and its cells; an empty line has no cells."""
    text: list[str] = []

    def kept() -> Iterator[str]:
        for line in lines:
            text.append(line)
            yield line

    reader, begin = csv.reader(kept(), delimiter=delimiter, strict=True), 1
    try:
        for cells in reader:
            # The module accepts a quotation mark within an unquoted cell: usually the start of a text with a delimiter.
            raw = "".join(text)
            if any('"' in cell and '"' + cell.replace('"', '""') + '"' not in raw for cell in cells):
                raise FormatError(
                    f"has a quotation mark within a cell in line {begin}; put the cell in quotation marks and double "
                    'those in it: "a ""slow"" tune"'
                )
            yield begin, cells
            begin = reader.line_num + 1
            text.clear()
    except csv.Error as error:
        raise FormatError(
            f"has a quotation mark in line {begin} that is not closed, or one in a quoted cell that is not doubled "
            f"(found by line {reader.line_num}: {error})"
        ) from error


def json_lines(lines: Iterator[str]) -> Iterator[tuple[int, Any]]:
    """Yields the number, counted from 1, and the value of each line; None for a blank line.

    Raises:
        FormatError: A line is no JSON value of Unicode text, is nested too deeply, or names a key twice.
    """
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line.rstrip(), object_pairs_hook=_object) if line.strip() else None
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            if isinstance(error, json.JSONDecodeError):
                reason = f"{error.msg} at column {error.colno}"
            raise FormatError(
                f"is not a JSONL file: line {number}: {reason}; expected one JSON value per line, not a document over "
                "several lines"
            ) from error
        yield number, value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {twice[0]!r} is named twice")
    return dict(pairs)


def read_table(path: str | Path, what: str, example: Row, required: Sequence[str] = ()) -> list[tuple[int, Row]]:
    """Reads the rows that are not blank, each with the number of its first line.

    Cells are stripped text; JSON nulls and empty cells are left out.

    Args:
        path: CSV or TSV file with a header, or JSONL with one object per line; UTF-8. The ending decides.
        what: Kind of file, for error messages.
        example: Example row, for error messages.
        required: Columns that the header of a CSV or TSV file must contain.

    Raises:
        ValueError: The file does not exist, has another ending, cannot be read, is malformed, or has no rows.
    """
    path, name = Path(path), f"{what} {str(path)!r}"
    kind = TABLE_KINDS.get(path.suffix.lower())
    if kind is None or not path.exists():
        found = f"a file with the ending {path.suffix or '(none)'!r}" if path.exists() else "no file"
        raise ValueError(f"{name}: expected a {TABLES} file; found {found}")
    with reading(path, name) as lines:
        rows = _objects(lines, example) if kind == "jsonl" else _table(lines, DELIMITERS[kind], example, required)
        cells = [(line, {key: cell.strip() for key, cell in row.items() if key and cell.strip()}) for line, row in rows]
    if not any(row for _, row in cells):
        raise ValueError(
            f"{name} contains no row; expected {'an object per line' if kind == 'jsonl' else 'rows below a header'}"
        )
    return [(line, row) for line, row in cells if row or kind == "jsonl"]


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


def _table(lines: Iterator[str], delimiter: str, example: Row, required: Sequence[str]) -> list[tuple[int, Row]]:
    header, rows = csv_rows(lines, delimiter)
    if missing := [name for name in required if name not in header]:
        raise FormatError(
            f"has no column {', '.join(map(repr, missing))}; present: {', '.join(header) or 'none'}; the first line "
            f"must be a header such as {delimiter.join(example)}"
        )
    return rows


def _objects(lines: Iterator[str], example: Row) -> Iterator[tuple[int, Row]]:
    for number, value in json_lines(lines):
        if value is None:
            continue
        if not isinstance(value, dict):
            raise FormatError(f"has no object in line {number}; expected one such as {json.dumps(example)}")
        yield number, {key: str(cell) for key, cell in value.items() if cell is not None}
