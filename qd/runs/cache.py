"""The cache folder, for files that can be made again, each with a hash of its content."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from qd.runs.atomic import atomic_write
from qd.runs.lock import waiting_lock
from qd.runs.printable import printable

HASH = ".sha256"
"""Ending of the file that holds the hash of its neighbour."""


def cache_folder() -> Path:
    """Returns ``QD_CACHE``, or ``qd`` in the user's cache folder; the folder may not exist yet.

    Raises:
        RuntimeError: Neither ``QD_CACHE`` nor ``XDG_CACHE_HOME`` is set, and the user has no home folder.
    """
    folder = os.environ.get("QD_CACHE")
    if folder:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "qd"


def made_once(place: Path, make: Callable[[], None]) -> Path:
    """Returns a file or folder of the cache, which is made if it is missing or damaged.

    Of several processes that need it at once, one makes it and the others wait.

    Args:
        place: The file or folder.
        make: Writes it atomically.

    Raises:
        OSError: The cache cannot be written.
    """
    if not is_intact(place):
        with waiting_lock(place):
            if not is_intact(place):
                if place.exists():
                    print(printable(f"{place} is damaged and is made again"), file=sys.stderr, flush=True)
                make()
                write_hash(place)
    return place


def is_intact(place: Path) -> bool:
    """Whether a file or folder exists with the content that :func:`write_hash` saw."""
    try:
        return _hash_file(place).read_text(encoding="ascii").strip() == _content_hash(place)
    except (OSError, UnicodeDecodeError):
        return False


def write_hash(place: Path) -> None:
    """Writes the hash of a file or folder next to it."""
    with atomic_write(_hash_file(place)) as temporary:
        temporary.write_text(f"{_content_hash(place)}\n", encoding="ascii")


def _hash_file(place: Path) -> Path:
    return place.with_name(place.name + HASH)


def _content_hash(place: Path) -> str:
    """SHA-256 of the names and contents of all files."""
    digest = hashlib.sha256()
    for file in sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(place).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
