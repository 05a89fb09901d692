"""Which files make up a library: all audio below a folder, or those that a manifest lists."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from qd.data.audio_files import ENDINGS
from qd.data.tables import TABLE_ENDINGS, Row, read_table, refuse_bad_rows
from qd.data.world.world import BUILTIN
from qd.metrics.formatting import first_items

ENDINGS_IN_MESSAGE = 5
WHAT = "manifest"
EXAMPLE = {"path": "a.flac", "name": "a", "genre": "jazz"}


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
    if path.suffix.lower() in TABLE_ENDINGS and path.is_file():
        return read_manifest(path)
    found = "a file of another kind" if path.exists() else "nothing"
    expected = ["a folder", f"a manifest ({' or '.join(TABLE_ENDINGS)})", *others]
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
        present = first_items([f"{count} {ending}" for ending, count in others.most_common()], ENDINGS_IN_MESSAGE)
        raise ValueError(
            f"folder {str(folder)!r} {'holds no audio file' if others else 'is empty'}; looked for "
            f"{', '.join(ENDINGS)} in it and in all folders below{f'; found {present}' if others else ''}"
        )
    return sorted(entries)


def read_manifest(path: Path) -> list[Entry]:
    """The rows of a CSV file with a header, or the objects of a JSONL file: ``path``, and if you like ``name`` and
    ``genre``. Paths are relative to the manifest's folder; a name that is not given is the path as it is written.

    Raises:
        ValueError: the file cannot be read, the column is missing, or rows name no file, a missing one, or one that
            another row names; all by line number.
    """
    rows = read_table(path, WHAT, EXAMPLE, required=["path"])
    entries = [_entry(path.parent, row) for _, row in rows]
    files, names, bad = {}, {}, []
    for (line, row), entry in zip(rows, entries, strict=True):
        first = files.setdefault(entry.path.resolve(), line)
        same = names.setdefault(entry.name, line)
        if "path" not in row:
            bad.append((line, "it has no path"))
        elif not entry.path.is_file():
            bad.append((line, f"there is no file {str(entry.path)!r}"))
        elif first != line:
            bad.append((line, f"line {first} has named the file {row['path']!r}"))
        elif same != line:
            bad.append((line, f"line {same} has the name {entry.name!r}"))
    refuse_bad_rows(path, WHAT, bad, "correct or remove them (paths are relative to the manifest's folder)")
    return entries


def _entry(folder: Path, row: Row) -> Entry:
    path = row.get("path", "")
    return Entry(row.get("name", path), folder / path, row.get("genre"))


def reference_paths(name: str) -> list[Path] | None:
    """The files of a reference; None of the built-in one.

    Raises:
        ValueError: it is none.
    """
    return None if name == BUILTIN else [entry.path for entry in list_recordings(name, repr(BUILTIN))]
