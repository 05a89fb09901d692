"""A disk that becomes full: a limit on the size of files, which the system enforces as it enforces a full disk."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

FULL = os.strerror(errno.EFBIG).lower()
"""Reason in the message: "file too large"."""


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """In this block no file can grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
