"""One process alone writes a folder or a file; another one that would is refused, and told which process it is."""

from __future__ import annotations

import fcntl
import os
import shlex
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from qd.runs.process_rank import first_process


@contextmanager
def exclusive_lock(place: str | Path) -> Iterator[None]:
    """Locks ``.<name>.lock`` beside the folder or file ``place``; the system unlocks it when the process ends, however.

    Of several ranks the first one does, which alone writes. It is a record lock: forked workers, which may outlive a
    killed process for a moment, do not inherit it. Within one process it keeps nobody out.

    Raises:
        ValueError: another process has locked it; says which one.
    """
    path = Path(place).resolve()
    lock = path.with_name(f".{path.name}.lock")
    file = _locked(lock, place) if first_process() else None
    try:
        yield
    finally:
        if file is not None:
            lock.unlink(missing_ok=True)
            os.close(file)


def _locked(lock: Path, place: str | Path) -> int | None:
    """The open file, which says who holds it; None, and told, where files cannot be locked."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _open_and_lock(lock)
    except BlockingIOError:
        raise ValueError(f"{place} is being written by {_holder(lock)}; wait until it ends, or stop it first") from None
    except OSError as error:
        warnings.warn(
            f"{lock} cannot be locked ({error}): see to it that one process alone writes {place}", stacklevel=2
        )
        return None
    who = f"process {os.getpid()} of {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.truncate(file, 0)
        os.write(file, f"{who}: {shlex.join(sys.argv)}\n".encode())
    return file


def _open_and_lock(lock: Path) -> int:
    """Once more, where the holder has ended meanwhile and has removed the file that was opened."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.is_file() and os.path.samestat(lock.stat(), os.fstat(file)):
                return file
        except FileNotFoundError:
            pass
        except OSError:
            os.close(file)
            raise
        os.close(file)


def _holder(lock: Path) -> str:
    try:
        said = lock.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # it has ended meanwhile
        said = ""
    return said or "another process"
