"""Locks a folder or a file, so that only one process writes it."""

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
    """Locks ``.<name>.lock`` next to the folder or file ``place``.

    The system releases the lock at any end of the process. Of several ranks only the first one, which writes, takes
    the lock. It is a record lock: forked workers, which may outlive a killed process for a moment, do not inherit it.
    It has no effect within one process.

    Raises:
        ValueError: Another process holds the lock; the message names it.
    """
    lock = _lock_file(place)
    file = _locked(lock, place) if first_process() else None
    try:
        yield
    finally:
        if file is not None:
            lock.unlink(missing_ok=True)
            os.close(file)


@contextmanager
def waiting_lock(place: str | Path) -> Iterator[None]:
    """Locks the same file as :func:`exclusive_lock`, on every rank, and waits while another process holds it.

    Where nothing can be written, or files cannot be locked, nothing is locked.
    """
    lock = _lock_file(place)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _open_and_lock(lock, fcntl.LOCK_EX)
    except OSError:
        file = None
    try:
        yield
    finally:
        if file is not None:
            lock.unlink(missing_ok=True)
            os.close(file)


def _lock_file(place: str | Path) -> Path:
    path = Path(place).resolve()
    return path.with_name(f".{path.name}.lock")


def _locked(lock: Path, place: str | Path) -> int | None:
    """Returns the open lock file with the name of this process; None, with a warning, if files cannot be locked."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _open_and_lock(lock)
    except BlockingIOError:
        raise ValueError(f"{place} is being written by {_holder(lock)}; wait until it ends, or stop it") from None
    except OSError as error:
        warnings.warn(
            f"{lock} cannot be locked ({error}): make sure that only one process writes {place}", stacklevel=2
        )
        return None
    who = f"process {os.getpid()} of {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
    with suppress(OSError):  # a full disk: the lock still works
        os.truncate(file, 0)
        os.write(file, f"{who}: {shlex.join(sys.argv)}\n".encode())
    return file


def _open_and_lock(lock: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> int:
    """Opens and locks the file; tries again if its last holder has just removed it."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, how)
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
        holder = lock.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # the holder has just ended
        holder = ""
    return holder or "another process"
