"""Reads listeners' ratings from a file: preferences between two recordings, or a rating of each recording.

Columns of a CSV file, or keys of JSONL objects:

- **pairwise**: ``audio_a``, ``audio_b``, and either ``preferred`` (``a``, ``b`` or ``tie``) or ``difference``, a number
  that is positive if a is better, 0 for a tie;
- **absolute**: ``audio`` and ``rating``, a number from 1 to 5.

``rater`` and ``prompt`` are optional in both. Absolute ratings are compared only within a rater, and within a prompt if
the file has prompts, because raters use the scale differently and prompts differ in difficulty. Audio paths are
relative to the file's folder.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from qd.data.audio_files import BadAudioError, check_whole
from qd.data.tables import Row, read_table, refuse_bad_rows
from qd.schema.paths import expand_home

LOWEST, HIGHEST = 1.0, 5.0
PREFERRED = {"a": 1.0, "b": -1.0, "tie": 0.0}
WHAT = "ratings"
EXAMPLE = {"audio": "a.wav", "rating": "4"}
COLUMNS = "audio_a, audio_b and preferred (or difference), or audio and rating"


@dataclass(frozen=True)
class Ratings:
    """Ratings of a file.

    Attributes:
        paths: Paths of the recordings, each once.
        sittings: Groups of comparable values, each a map from the number of a recording to its value; larger is better.
            A pairwise comparison is a sitting of two; the ratings of one rater (for one prompt) are one sitting.
        rows: Number of rows in the file.
        kind: ``pairwise`` or ``absolute``.
        raters: Number of named raters; 0 if the file names none.
    """

    paths: tuple[Path, ...]
    sittings: tuple[dict[int, float], ...]
    rows: int
    kind: str
    raters: int


def read_ratings(path: str | Path) -> Ratings:
    """Reads the ratings of a file.

    Raises:
        ValueError: The file cannot be read, lacks columns, or has unusable rows (the message lists their lines); or no
            rater has rated two recordings, or all comparisons are ties.
    """
    rows = read_table(path, WHAT, EXAMPLE)
    columns = set().union(*(row for _, row in rows))
    kind = _kind(path, columns)
    reader = _Reader(Path(path).parent)
    for line, row in rows:
        (reader.comparison if kind == "pairwise" else reader.rating)(line, row)
    refuse_bad_rows(path, WHAT, reader.bad, "correct or remove them (paths are relative to the file's folder)")
    ratings = Ratings(
        tuple(reader.numbers),
        tuple(reader.sittings()),
        len(rows),
        kind,
        len({row["rater"] for _, row in rows if "rater" in row}),
    )
    if not any(len(sitting) > 1 for sitting in ratings.sittings):
        raise ValueError(
            f"{WHAT} {str(path)!r}: no rater has rated two recordings{' of one prompt' * ('prompt' in columns)}, so "
            "nothing can be compared; add ratings"
        )
    if all(len(set(sitting.values())) == 1 for sitting in ratings.sittings):
        raise ValueError(f"{WHAT} {str(path)!r}: all comparisons are ties; add comparisons with a winner")
    return ratings


def _kind(path: str | Path, columns: set[str]) -> str:
    pairwise = {"audio_a", "audio_b"} <= columns and len({"preferred", "difference"} & columns) == 1
    absolute = {"audio", "rating"} <= columns
    if pairwise == absolute:
        raise ValueError(f"{WHAT} {str(path)!r}: expected the columns {COLUMNS}; present: {', '.join(sorted(columns))}")
    return "pairwise" if pairwise else "absolute"


class _Reader:
    """Collects the ratings of the rows, and their problems."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bad: list[tuple[int, str]] = []
        self.numbers: dict[Path, int] = {}
        self._problems: dict[Path, str | None] = {}
        self._pairs: list[dict[int, float]] = []
        self._rated: dict[tuple[str | None, str | None], dict[int, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def comparison(self, line: int, row: Row) -> None:
        """Adds a pairwise row."""
        a, b = self._audio(line, row, "audio_a"), self._audio(line, row, "audio_b")
        difference = self._difference(line, row)
        if None in (a, b, difference):
            return
        if a == b:
            self.bad.append((line, f"audio_a and audio_b are both {row['audio_a']!r}"))
            return
        self._pairs.append({a: difference, b: 0.0})

    def rating(self, line: int, row: Row) -> None:
        """Adds an absolute row."""
        number = self._audio(line, row, "audio")
        value = _number(row.get("rating"))
        if value is None or not LOWEST <= value <= HIGHEST:
            self.bad.append((line, f"rating is {row.get('rating')!r}; expected a number from 1 to 5"))
        elif number is not None:
            self._rated[row.get("rater"), row.get("prompt")][number].append(value)

    def sittings(self) -> list[dict[int, float]]:
        """Returns groups of comparable values; repeated ratings of a recording by one rater are averaged."""
        rated = [{n: sum(values) / len(values) for n, values in each.items()} for each in self._rated.values()]
        return [*self._pairs, *rated]

    def _difference(self, line: int, row: Row) -> float | None:
        if "difference" in row:
            difference = _number(row["difference"])
            expected = "a number, positive if a is better"
        else:
            difference = PREFERRED.get(row.get("preferred", "").lower())
            expected = "a, b or tie"
        if difference is None:
            column = "difference" if "difference" in row else "preferred"
            self.bad.append((line, f"{column} is {row.get(column)!r}; expected {expected}"))
        return difference

    def _audio(self, line: int, row: Row, column: str) -> int | None:
        """Returns the recording's number; None if the recording cannot be used."""
        if column not in row:
            self.bad.append((line, f"{column} is empty"))
            return None
        path = Path(os.path.normpath(self.folder / expand_home(row[column])))
        if path not in self._problems:
            self._problems[path] = _problem(path)
        if problem := self._problems[path]:
            self.bad.append((line, f"{column} {row[column]!r} {problem}"))
            return None
        return self.numbers.setdefault(path, len(self.numbers))


def _problem(path: Path) -> str | None:
    if not os.path.exists(path):  # unlike Path.exists, False for a name that is too long
        return "does not exist"
    try:
        check_whole(path)
    except BadAudioError as error:
        return f"is not readable audio ({error})"
    return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
