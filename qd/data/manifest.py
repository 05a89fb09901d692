"""Lists the files of a library: all audio below a folder, or the files of a manifest."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from qd.data.audio_files import ENDINGS
from qd.data.tables import TABLE_KINDS, TABLES, Row, read_table, refuse_bad_rows
from qd.data.world.world import BUILTIN
from qd.metrics.formatting import first_items
from qd.runs.process_rank import first_process
from qd.schema.paths import expand_home

ENDINGS_IN_MESSAGE = 5
WHAT = "manifest"
EXAMPLE = {"path": "a.flac", "name": "a", "genre": "jazz"}


class Entry(NamedTuple):
    """One recording.

    Attributes:
        name: Unique name within the library, independent of the library's location; decides whether it is held out.
        path: Path of the file.
        genre: Genre; None if unknown.
    """

    name: str
    path: Path
    genre: str | None


def list_recordings(source: str | Path, *others: str) -> list[Entry]:
    """Lists the recordings of a folder or a manifest.

    Args:
        source: Path of the folder or manifest.
        others: Other accepted sources, for the error message.

    Raises:
        ValueError: The source does not exist, cannot be read, is malformed, or names no audio file.
    """
    path = Path(source)
    if path.is_dir():
        return list_folder(path)
    if path.suffix.lower() in TABLE_KINDS and path.exists():
        return read_manifest(path)
    found = "a file of another kind" if path.exists() else "nothing"
    expected = ["a folder", f"a manifest ({TABLES})", *others]
    raise ValueError(
        f"recordings {str(source)!r}: expected {', '.join(expected[:-1])} or {expected[-1]}; found {found}"
    )


def list_folder(folder: Path) -> list[Entry]:
    """Lists every audio file below ``folder``, sorted; its name is its path relative to the folder.

    Hidden files and folders are skipped. A link to a folder is followed unless that folder is listed already. What is
    left out is counted in one line on stderr, once in a process.

    Raises:
        ValueError: There is no audio file; the message lists the expected and the existing file endings.
    """
    entries, others, unreadable = [], Counter(), []
    for path in _files(folder, unreadable):
        ending = path.suffix.lower() or "without ending"
        if path.suffix.lower() not in ENDINGS:
            others[ending] += 1
        elif not path.is_file() and path.exists():
            others[f"{ending} that is a device or a pipe"] += 1
        else:
            entries.append(Entry(path.relative_to(folder).as_posix(), path, None))
    left_out = _left_out(others, unreadable)
    if not entries:
        what = "contains no audio file" if left_out else "is empty"
        raise ValueError(
            f"folder {str(folder)!r} {what}; expected {', '.join(ENDINGS)} in it or in a folder below"
            + (f"; {left_out}" if left_out else "")
        )
    if left_out:
        _report(f"folder {str(folder)!r}: {_counted(len(entries), 'recording')}; {left_out}")
    return sorted(entries)


def _files(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    """Yields every file that is not hidden, those of linked folders last, and collects folders that cannot be read."""
    waiting, seen = [folder], set()
    while waiting:  # real folders come first, so that a link to one of them changes no recording's name
        for root, folders, files in os.walk(waiting.pop(0), onerror=lambda error: unreadable.append(_reason(error))):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            waiting += [Path(root, name) for name in folders if Path(root, name).is_symlink()]
            yield from (Path(root, name) for name in files if not name.startswith("."))


def _left_out(others: Counter[str], unreadable: list[str]) -> str:
    parts = []
    if others:
        kinds = first_items([f"{count} {ending}" for ending, count in others.most_common()], ENDINGS_IN_MESSAGE)
        parts.append(f"{_counted(others.total(), 'file')} left out: {kinds}")
    if unreadable:
        listed = first_items(unreadable, ENDINGS_IN_MESSAGE)
        parts.append(f"{_counted(len(unreadable), 'folder')} that cannot be read: {listed}")
    return "; ".join(parts)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def _reason(error: OSError) -> str:
    return f"{str(error.filename)!r} ({error.strerror})"


@cache
def _report(line: str) -> None:
    """Prints a line on stderr, once in a process, because a command may list a folder several times."""
    if first_process():
        print(line, file=sys.stderr, flush=True)


def read_manifest(path: Path) -> list[Entry]:
    """Reads a CSV file with a header, or a JSONL file of objects: ``path``, and optionally ``name`` and ``genre``.

    Paths are relative to the manifest's folder; the default name is the path as written.

    Raises:
        ValueError: The file cannot be read, the column ``path`` is missing, or rows have no path, a missing file, or
            the file or name of another row; the message lists them by line number.
    """
    rows = read_table(path, WHAT, EXAMPLE, required=["path"])
    entries = [_entry(path.parent, row) for _, row in rows]
    files, names, bad = {}, {}, []
    for (line, row), entry in zip(rows, entries, strict=True):
        first = files.setdefault(entry.path.resolve(), line)
        same = names.setdefault(entry.name, line)
        if "path" not in row:
            bad.append((line, "the path is missing"))
        elif not os.path.isfile(entry.path):  # unlike Path.is_file, False for a name that is too long
            what = "is a folder, a device or a pipe" if os.path.exists(entry.path) else "does not exist"
            bad.append((line, f"the file {str(entry.path)!r} {what}"))
        elif first != line:
            bad.append((line, f"the file {row['path']!r} is already in line {first}"))
        elif same != line:
            bad.append((line, f"the name {entry.name!r} is already in line {same}"))
    refuse_bad_rows(path, WHAT, bad, "correct or remove them (paths are relative to the manifest's folder)")
    return entries


def _entry(folder: Path, row: Row) -> Entry:
    path = row.get("path", "")
    return Entry(row.get("name", path), folder / expand_home(path), row.get("genre"))


def reference_paths(name: str) -> list[Path] | None:
    """Lists the files of a reference; None for the built-in one.

    Raises:
        ValueError: The name is neither "builtin" nor a folder or manifest of recordings.
    """
    return None if name == BUILTIN else [entry.path for entry in list_recordings(name, repr(BUILTIN))]
