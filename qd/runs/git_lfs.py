"""Files that git-lfs has not downloaded yet."""

from __future__ import annotations

from pathlib import Path

MARK = b"version https://git-lfs.github.com/spec/"


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is the short text that git stores instead of a large file."""
    with file.open("rb") as stream:
        return stream.read(len(MARK)) == MARK
