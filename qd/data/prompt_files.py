"""Reads prompts from files, for training and for evaluation.

In every format, texts are stripped, empty ones are skipped, and of texts that differ only in case and white space the
first is used. The lines of skipped texts are reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from qd.data.tables import DELIMITERS, TABLE_KINDS, TABLES, FormatError, csv_rows, json_lines, reading
from qd.metrics.formatting import first_items

GENERIC = Path(__file__).with_name("generic_prompts.txt")
"""Short prompts that the paper calls generic, such as "Rock song."."""
COLUMNS = ("prompt", "caption", "text")
"""Default columns (keys): the first of these that exists."""
HEADERS = {
    "musiccaps": ("ytid", "aspect_list", "caption"),
    "song-describer": ("caption_id", "track_id", "caption", "is_valid_subset"),
}
"""Columns that identify the published CSV files. Only the validated captions of Song Describer are used."""
FILE_KINDS = ("text", "csv", "tsv", "jsonl", *HEADERS)
TEXT_ENDINGS = (".txt", "")
LINES_IN_MESSAGE = 5

_Rows = Iterator[tuple[int, str | None]]
"""First line of a prompt, counted from 1, and its text; None for an excluded row."""


@dataclass(frozen=True)
class Prompts:
    """Prompts of a file.

    Attributes:
        name: Name of the file, for messages.
        texts: Prompts in the file's order, without empty or repeated ones.
        lines: First line of each prompt, counted from 1.
        empty, repeated: Lines of the skipped prompts.
        left_out: Number of rows outside the validated part of Song Describer.
    """

    name: str
    texts: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    left_out: int = 0

    def first(self, size: int | None) -> Prompts:
        """Returns the first ``size`` prompts; None returns all."""
        return replace(self, texts=self.texts[:size], lines=self.lines[:size])

    def summary(self) -> str:
        """Returns one line with the number of prompts and the skipped lines."""
        parts = [f"{self.name}: {len(self.texts):,} prompt{'s' if len(self.texts) != 1 else ''}"]
        parts += [f"{len(self.empty):,} empty ({listed_lines(self.empty)})"] if self.empty else []
        if self.repeated:
            parts.append(f"{len(self.repeated):,} repeated ({listed_lines(self.repeated)})")
        parts += [f"{self.left_out:,} not validated and left out"] if self.left_out else []
        return "; ".join(parts)


class PromptFile(NamedTuple):
    """A list of prompts and its format.

    Attributes:
        kind: ``generic`` (the shipped list) or one of :data:`FILE_KINDS`; ``builtin`` is the grammar, not a list.
        path: Path of the file, UTF-8.
        column: Column of a CSV or TSV file, or key of the objects of a JSONL file; None uses the first of
            :data:`COLUMNS`.
    """

    kind: str
    path: str | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> PromptFile:
        """Parses ``generic``, ``builtin``, ``a.txt``, ``a.csv[:column]``, ``a.jsonl[:key]`` or ``<kind>:<file>``.

        Without a kind, the file's ending decides.

        Raises:
            ValueError: The ending is unknown.
        """
        if text in ("generic", "builtin"):
            return cls(text)
        head, colon, rest = text.partition(":")
        kind, path = (head, rest) if colon and head in FILE_KINDS else (None, text)
        file, colon, column = path.rpartition(":")
        if colon and kind in (None, *TABLE_KINDS.values()) and Path(file).suffix.lower() in TABLE_KINDS:
            return cls(kind or TABLE_KINDS[Path(file).suffix.lower()], file, column)
        ending = Path(path).suffix.lower()
        if kind is None and ending not in (*TABLE_KINDS, *TEXT_ENDINGS):
            raise ValueError(
                f"prompt file {path!r} has the ending {ending!r}; expected .txt (one prompt per line), {TABLES}; to "
                f"read it as text, write text:{path}"
            )
        return cls(kind or TABLE_KINDS.get(ending, "text"), path)

    def read(self) -> Prompts:
        """Reads the prompts in the file's order.

        Raises:
            ValueError: The file cannot be read, contains no prompt, or has another format; the message names the lines.
        """
        if self.kind == "builtin":
            raise ValueError("the built-in grammar is not a list of prompts; expected a file or 'generic'")
        path = GENERIC if self.kind == "generic" else Path(str(self.path))
        name = "the generic prompts" if self.kind == "generic" else f"prompt file {str(path)!r}"
        with reading(path, name) as lines:
            return _without_repeats(name, self._rows(lines))

    def _rows(self, lines: Iterator[str]) -> _Rows:
        if self.kind == "jsonl":
            return _json_values(lines, self.column)
        return enumerate(lines, start=1) if self.kind in ("text", "generic") else self._cells(lines)

    def _cells(self, lines: Iterator[str]) -> _Rows:
        header, rows = csv_rows(lines, DELIMITERS.get(self.kind, ","))
        missing = [name for name in HEADERS.get(self.kind, ()) if name not in header]
        if missing:
            raise FormatError(f"is not a {self.kind} file: it has no column {', '.join(map(repr, missing))}")
        chosen = _chosen(header, self.column)
        for line, cells in rows:
            excluded = self.kind == "song-describer" and cells["is_valid_subset"].strip().lower() != "true"
            yield line, None if excluded else cells[chosen]


def listed_lines(numbers: Sequence[int]) -> str:
    """``lines 3, 5 and 9 more``."""
    return f"line{'s' if len(numbers) > 1 else ''} {first_items(numbers, LINES_IN_MESSAGE)}"


def _without_repeats(name: str, rows: _Rows) -> Prompts:
    """Collects the texts that are neither empty nor repeated, and the lines of the others."""
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
        raise FormatError("contains no prompt; expected one per line or row")
    return Prompts(name, texts, lines, empty, repeated, left_out)


def _json_values(lines: Iterator[str], key: str | None) -> _Rows:
    """Yields the prompt of each line: a JSON string, or the value of a JSON object."""
    for number, value in json_lines(lines):
        try:
            value = value[_chosen(list(value), key)] if isinstance(value, dict) else value
        except FormatError as error:
            raise FormatError(f"{error} (line {number})") from error
        if not isinstance(value, str | None):
            raise FormatError(
                f"contains {str(value)[:80]} in line {number}; expected a string, or an object with a string"
            )
        yield number, value or ""


def _chosen(present: Sequence[str], column: str | None) -> str:
    """Returns the column (key) with the prompts."""
    wanted = COLUMNS if column is None else (column,)
    for name in wanted:
        if name in present:
            return name
    names = " or ".join(map(repr, wanted))
    raise FormatError(f"has no column {names}; present: {', '.join(present) or 'none'}; name one: <file>:<column>")
