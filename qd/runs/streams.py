"""Standard output and standard error that never stop the work.

A long run must not end because nobody reads its output any more (``| head``, a closed terminal, a full disk under a
log file), or because the terminal cannot show a letter such as β.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class _Lasting(io.FileIO):
    """A file whose output is discarded from the first failed write on."""

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError:
            # The descriptor is replaced, so that libraries that write to it directly do not fail either.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def keep_streams() -> None:
    """Replaces ``sys.stdout`` and ``sys.stderr`` by streams that cannot fail.

    A letter that the encoding does not have is written as an escape (``\\u03b2``). Streams that are no plain files,
    such as those of a notebook or a test, stay as they are.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start: otherwise the next opened file would get its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the whole process
        elif type(stream) is io.TextIOWrapper and _is_file(stream):
            stream.flush()
            raw = _Lasting(stream.fileno(), "w", closefd=False)
            buffer = io.BufferedWriter(raw)
            setattr(
                sys, name, io.TextIOWrapper(buffer, stream.encoding, errors="backslashreplace", line_buffering=True)
            )


def print_from_handler(text: str) -> None:
    """Prints a line from a signal handler, which may have interrupted another print."""
    try:
        print(text, flush=True)
    except RuntimeError:  # Python's buffer cannot be entered twice
        with suppress(OSError):
            os.write(sys.stdout.fileno(), f"{text}\n".encode(sys.stdout.encoding, "backslashreplace"))


def _is_file(stream: TextIO) -> bool:
    raw = getattr(stream.buffer, "raw", stream.buffer)
    return isinstance(raw, io.FileIO) and not isinstance(raw, _Lasting)
