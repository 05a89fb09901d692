"""Writes files and folders completely or not at all.

The rule for crashes: the content is written under a temporary name next to the target, forced to the disk, and then
renamed. A reader, or the next process, finds the old content or the new one, never a part of it. After an error the
temporary is removed. A killed process leaves its temporary behind; the next write of the same target on the same
machine removes it. Several processes, but not several threads, may write the same target at once: each has its own
temporary, and the last one to finish counts. A link is followed: its target is replaced, not the link.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

TEMPORARY = ".tmp"
"""Ending of what is being written."""
OLD = ".old"
"""Ending of a folder that is being replaced."""
LONGEST_NAME = 120
"""Bytes of a name that the temporary name contains; of a longer one it contains a hash, to stay below 255 bytes."""

PROBE, PROBE_BYTES = ".probe", 2**20
"""File that is written into a folder after an error of a library, to learn whether its disk is full."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields the path of a temporary file to write; when the block ends, this file takes the place of ``path``.

    Missing parent folders are made.

    Raises:
        OSError: the folder cannot be written; the old file is unchanged.
    """
    path = Path(os.path.realpath(path))
    temporary = _temporary(path)
    try:
        with _disk_errors(path, temporary):
            yield temporary
            _force_to_disk(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields a new, empty folder to fill; when the block ends, it is renamed to ``path``.

    Missing parent folders are made.

    Args:
        path: Folder to make.
        replace: Whether to replace an existing folder; without it, an existing folder is an error. If the process is
            killed between the two renames, the next write puts the old folder back.

    Raises:
        OSError: ``path`` exists, or its parent cannot be written.
    """
    path = Path(path)
    temporary = _temporary(path)
    _remove(temporary)
    temporary.mkdir()
    try:
        with _disk_errors(path, temporary):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _force_to_disk(file)
            _rename(temporary, path, replace)
    finally:
        _remove(temporary)


@contextmanager
def added_files(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder to fill; when the block ends, its content is moved into ``folder``, which may exist.

    After an error, ``folder`` is as before.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = Path(folder)
    if not folder.exists():
        with atomic_folder(folder) as temporary:
            yield temporary
        return
    temporary = _temporary(folder / "files")
    _remove(temporary)
    temporary.mkdir()
    try:
        with _disk_errors(folder, temporary):
            yield temporary
            for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
                _force_to_disk(file)
                target = folder / file.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    finally:
        _remove(temporary)


def _rename(temporary: Path, path: Path, replace: bool) -> None:
    if path.exists() and not replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    old = temporary.with_suffix(OLD)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    _remove(old)


@contextmanager
def _disk_errors(path: Path, temporary: Path) -> Iterator[None]:
    """Gives errors of the disk the name of the file that is written, also those that a library reports as its own."""
    try:
        yield
    except shutil.Error as error:  # of shutil.copytree, without an error number
        _raise_if_full(path, temporary, error)
        raise
    except OSError as error:
        # A copy from elsewhere names its source first.
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        inside = not names or any(name.startswith(str(temporary)) for name in names)
        if error.errno is None or not inside:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except (RuntimeError, SafetensorError) as error:  # libraries report a full disk in words of their own
        _raise_if_full(path, temporary, error)
        raise


def _raise_if_full(path: Path, temporary: Path, error: Exception) -> None:
    """Writes some more, to learn the disk's own error."""
    try:
        with (temporary / PROBE if temporary.is_dir() else temporary).open("ab") as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as reason:
        raise OSError(reason.errno, reason.strerror, str(path)) from error


def _temporary(path: Path) -> Path:
    """The temporary name of this process next to ``path``; removes leftovers of processes that no longer run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = os.fsencode(path.name)
    name = path.name if len(encoded) <= LONGEST_NAME else hashlib.sha256(encoded).hexdigest()[:32]
    prefix = f".{name}.{socket.gethostname()}-"
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*"):
        number = leftover.stem.removeprefix(prefix)
        if leftover.suffix not in (TEMPORARY, OLD) or not number.isdigit() or _is_running(int(number)):
            continue
        if leftover.suffix == OLD and not path.exists():
            leftover.rename(path)
        else:
            _remove(leftover)
    return path.with_name(f"{prefix}{os.getpid()}{TEMPORARY}")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only checks
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _force_to_disk(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
