"""Another process that locks a folder or a file as long as a test needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import os, sys, time
from qd.runs.lock import exclusive_lock
with exclusive_lock(sys.argv[1]):
    worker = os.fork() if "forks" in sys.argv else os.getpid()
    if worker == 0:
        time.sleep(60)
        os._exit(0)
    print(worker, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def locked_by_another(place: Path, *how: str) -> Iterator[subprocess.Popen]:
    """Starts the process, which holds the lock until it reads a line or the context ends.

    Its attribute ``number`` is its process number, or with ``"forks"`` that of its forked worker.
    """
    command = [sys.executable, "-c", CODE, str(place), *how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        process.number = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
