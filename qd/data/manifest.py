"""Which files make up a library: all audio below a folder, or those that a manifest lists."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from qd.data.audio_files import ENDINGS

MANIFEST_ENDINGS = (".csv", ".jsonl")
SHOWN = 5  # so many lines are named in an error, and the others are counted


class Entry(NamedTuple):
    """One recording.

    Attributes:
        name: tells it from all others of its library, wherever that lies; decides whether it is held out.
        path: of its file.
        genre: None if unknown.
    """

    name: str
    path: Path
    genre: str | None


def list_recordings(source: str | Path, *others: str) -> list[Entry]:
    """The recordings of a folder or a manifest.

    Args:
        source: its path.
        others: what else can be named in its place, for the error message.

    Raises:
        ValueError: it does not exist, cannot be read, is malformed, or names no audio file.
    """
    path = Path(source)
    if path.is_dir():
        return list_folder(path)
    if path.suffix.lower() in MANIFEST_ENDINGS and path.is_file():
        return read_manifest(path)
    found = "a file of another kind" if path.exists() else "nothing"
    expected = ["a folder", f"a manifest ({' or '.join(MANIFEST_ENDINGS)})", *others]
    raise ValueError(
        f"recordings {str(source)!r}: expected {', '.join(expected[:-1])} or {expected[-1]}; found {found} there"
    )


def list_folder(folder: Path) -> list[Entry]:
    """Every audio file below ``folder``, sorted; named by its path from there. Hidden files and folders are left out,
    and links to folders are not followed.

    Raises:
        ValueError: there is none; the endings that were looked for, and those that are there, are named.
    """
    entries, others = [], Counter()
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(root, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() in ENDINGS:
                entries.append(Entry(path.relative_to(folder).as_posix(), path, None))
            else:
                others[path.suffix.lower() or "(none)"] += 1
    if not entries:
        present = ", ".join(f"{count} {ending}" for ending, count in others.most_common(SHOWN))
        raise ValueError(
            f"folder {str(folder)!r} {'holds no audio file' if others else 'is empty'}; looked for "
            f"{', '.join(ENDINGS)} in it and in all folders below{f'; found {present}' if others else ''}"
        )
    return sorted(entries)


def read_manifest(path: Path) -> list[Entry]:
    """The rows of a CSV file with a header, or the objects of a JSONL file: ``path``, and if you like ``name`` and
    ``genre``. Paths are relative to the manifest's folder; a name that is not given is the path as it is written.

    Raises:
        ValueError: the file cannot be read, a key is missing, or lines name no file, a missing one, or one that
            another line names; by line number.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(_csv_rows(path, file) if path.suffix.lower() == ".csv" else _jsonl_rows(path, file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"manifest {str(path)!r} cannot be read ({error}); expected UTF-8 text") from error
    if not rows:
        raise ValueError(f"manifest {str(path)!r} lists no recording; expected one a {_unit(path)}")
    entries = [_entry(path.parent, row) for _, row in rows]
    lines = [number for number, _ in rows]
    problems = {
        "have no path": [line for line, (_, row) in zip(lines, rows, strict=True) if not row.get("path")],
        "name files that do not exist": [
            f"{line} ({entry.path})" for line, entry in zip(lines, entries, strict=True) if not entry.path.is_file()
        ],
        "name a file that another line has named": _repeated(lines, [entry.path.resolve() for entry in entries]),
        "have a name that another line has": _repeated(lines, [entry.name for entry in entries]),
    }
    for what, where in problems.items():
        if where:
            more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
            listed = ", ".join(map(str, where[:SHOWN]))
            raise ValueError(
                f"manifest {str(path)!r} has lines that {what}: {listed}{more}; correct or remove them (paths are "
                "relative to the manifest's folder)"
            )
    return entries


def _unit(path: Path) -> str:
    return "row below the header" if path.suffix.lower() == ".csv" else "line"


def _entry(folder: Path, row: dict[str, str]) -> Entry:
    return Entry(row.get("name") or row.get("path") or "", folder / (row.get("path") or ""), row.get("genre") or None)


def _repeated(lines: list[int], keys: Iterable[object]) -> list[int]:
    """Lines whose key an earlier line has."""
    seen: set[object] = set()
    return [line for line, key in zip(lines, keys, strict=True) if key in seen or seen.add(key)]


def _csv_rows(path: Path, file: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number (of the row's last line) and cells of each row that is not blank."""
    rows = csv.DictReader(file)
    present = [name.strip() for name in rows.fieldnames or []]
    if "path" not in present:
        raise ValueError(
            f"manifest {str(path)!r} has no column 'path'; present: {', '.join(present) or 'none'}; the first line "
            "must be a header such as path,name,genre"
        )
    rows.fieldnames = present
    for row in rows:
        yield rows.line_num, {key: (row[key] or "").strip() for key in present}


def _jsonl_rows(path: Path, file: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and object of each line that is not blank."""
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"manifest {str(path)!r}, line {number}, is no JSON ({error})") from error
        if not isinstance(row, dict) or not row.get("path"):
            raise ValueError(
                f'manifest {str(path)!r}, line {number}, has no "path"; expected an object such as '
                '{"path": "a.flac", "name": "a", "genre": "jazz"}'
            )
        yield number, {key: str(row[key]) for key in ("path", "name", "genre") if row.get(key) is not None}
