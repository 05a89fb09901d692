"""Prompts from files: one reader for training and for evaluation.

Whatever the format, texts are stripped, empty ones are skipped, and of those that differ in case and white space only
the first is kept. What was skipped is told by line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TextIO

from qd.data.tables import FormatError, csv_rows, json_lines, reading
from qd.metrics.formatting import first_items

GENERIC = Path(__file__).with_name("generic_prompts.txt")
"""Short prompts of the kind that the paper calls generic: "Rock song."."""
COLUMNS = ("prompt", "caption", "text")
"""Where no column (key) is named, the first of these that there is."""
HEADERS = {
    "musiccaps": ("ytid", "aspect_list", "caption"),
    "song-describer": ("caption_id", "track_id", "caption", "is_valid_subset"),
}
"""By what the published CSV files are known. Of Song Describer only the validated captions are taken."""
FILE_KINDS = ("text", "csv", "jsonl", *HEADERS)
ENDINGS = {".csv": "csv", ".jsonl": "jsonl"}
LINES_IN_MESSAGE = 5

_Rows = Iterator[tuple[int, str | None]]
"""The line, from 1 on, where a prompt begins, and its text; None is a row that is left out."""


@dataclass(frozen=True)
class Prompts:
    """What a file gives.

    Attributes:
        name: of the file, for messages.
        texts: in the file's order, none empty and none twice.
        lines: where each begins, from 1 on.
        empty, repeated: lines of what was skipped.
        left_out: rows that do not belong to the validated part of Song Describer.
    """

    name: str
    texts: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    left_out: int = 0

    def first(self, size: int | None) -> Prompts:
        """The first so many; None is all."""
        return replace(self, texts=self.texts[:size], lines=self.lines[:size])

    def summary(self) -> str:
        """How many there are, and what was skipped, on one line."""
        parts = [f"{self.name}: {len(self.texts):,} prompt{'s' if len(self.texts) != 1 else ''}"]
        parts += [f"{len(self.empty):,} empty ({listed_lines(self.empty)})"] if self.empty else []
        if self.repeated:
            parts.append(f"{len(self.repeated):,} skipped that repeat an earlier one ({listed_lines(self.repeated)})")
        parts += [f"{self.left_out:,} left out that are not validated"] if self.left_out else []
        return "; ".join(parts)


class PromptFile(NamedTuple):
    """A list of prompts, and how to read it.

    Attributes:
        kind: ``generic`` (the shipped list) or one of :data:`FILE_KINDS`; ``builtin`` is the grammar, which is no list.
        path: of the file, UTF-8.
        column: of a CSV file, or key of the objects of a JSONL file; None takes the first of :data:`COLUMNS`.
    """

    kind: str
    path: str | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> PromptFile:
        """What is meant by ``generic``, ``builtin``, ``a.txt``, ``a.csv``, ``a.csv:column``, ``a.jsonl:key`` or
        ``<kind>:<file>``; the ending decides where no kind is named."""
        if text in ("generic", "builtin"):
            return cls(text)
        head, colon, rest = text.partition(":")
        kind, path = (head, rest) if colon and head in FILE_KINDS else (None, text)
        file, colon, column = path.rpartition(":")
        if colon and kind in (None, *ENDINGS.values()) and Path(file).suffix.lower() in ENDINGS:
            return cls(kind or ENDINGS[Path(file).suffix.lower()], file, column)
        return cls(kind or ENDINGS.get(Path(path).suffix.lower(), "text"), path)

    def read(self) -> Prompts:
        """The prompts in the file's order.

        Raises:
            ValueError: the file cannot be read, holds no prompt, or is not of its kind; lines are named.
        """
        if self.kind == "builtin":
            raise ValueError("the built-in grammar is no list of prompts; expected a file or generic")
        path = GENERIC if self.kind == "generic" else Path(str(self.path))
        name = "the generic prompts" if self.kind == "generic" else f"prompt file {str(path)!r}"
        with reading(path, name) as file:
            return _sorted_out(name, self._rows(file))

    def _rows(self, file: TextIO) -> _Rows:
        if self.kind == "jsonl":
            return _json_values(file, self.column)
        if self.kind in ("csv", *HEADERS):
            return _csv_cells(file, self.kind, self.column)
        return enumerate(file, start=1)


def listed_lines(numbers: Sequence[int]) -> str:
    """``lines 3, 5 and 9 more``."""
    return f"line{'s' if len(numbers) > 1 else ''} {first_items(numbers, LINES_IN_MESSAGE)}"


def _sorted_out(name: str, rows: _Rows) -> Prompts:
    """The texts that are worth keeping, and where the others stand."""
    seen: set[str] = set()
    texts, lines, empty, repeated, left_out = [], [], [], [], 0
    for line, text in rows:
        folded = " ".join((text or "").casefold().split())
        if text is None:
            left_out += 1
        elif not folded:
            empty.append(line)
        elif folded in seen:
            repeated.append(line)
        else:
            seen.add(folded)
            texts.append(text.strip())
            lines.append(line)
    if not texts:
        raise FormatError("holds no prompt; expected one a line, or one a row")
    return Prompts(name, texts, lines, empty, repeated, left_out)


def _csv_cells(file: TextIO, kind: str, column: str | None) -> _Rows:
    header, rows = csv_rows(file)
    missing = [name for name in HEADERS.get(kind, ()) if name not in header]
    if missing:
        raise FormatError(f"is no {kind} file: it has no column {', '.join(map(repr, missing))}")
    chosen = _chosen(header, column)
    for line, cells in rows:
        out = kind == "song-describer" and cells.get("is_valid_subset", "").strip().lower() != "true"
        yield line, None if out else cells.get(chosen, "")


def _json_values(file: TextIO, key: str | None) -> _Rows:
    """Of one JSON object, or one JSON string, a line."""
    for number, value in json_lines(file):
        try:
            value = value[_chosen(list(value), key)] if isinstance(value, dict) else value
        except FormatError as error:
            raise FormatError(f"{error} (line {number})") from error
        if not isinstance(value, str | None):
            raise FormatError(f"holds {value!r} in line {number}; expected a text, or an object that holds one")
        yield number, value or ""


def _chosen(present: Sequence[str], column: str | None) -> str:
    """The column (key) that holds the prompts."""
    wanted = COLUMNS if column is None else (column,)
    for name in wanted:
        if name in present:
            return name
    told = " or ".join(map(repr, wanted))
    raise FormatError(f"has no column {told}; present: {', '.join(present) or 'none'}; name one: <file>:<column>")
