"""``qd`` in real processes that report where they are, so that a fault can hit them there.

A fork server imports everything once; each command is then a process of its own after a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from experiments.fault_child import Mark, Trap, run

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300.0  # seconds; a command that takes longer hangs
TOKEN = "QD_FAULT_TOKEN"


@dataclass
class Running:
    """A started command.

    Attributes:
        process: The process.
        output: Reads what it prints.
        reports: Reads its marks.
        marks: The marks so far.
        text: The output so far.
        token: Value of the environment variable that the processes of a launched command share.
    """

    process: Any
    output: Connection
    reports: Connection
    marks: list[Mark] = field(default_factory=list)
    text: bytes = b""
    token: str = ""

    @property
    def status(self) -> int | None:
        """Exit status, −number after a signal; None while the process runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    @property
    def saved(self) -> int:
        """Step of the last finished checkpoint; -1 before the first one."""
        return max([-1, *(mark.number for mark in self.marks if mark.phase == "checkpoint" and not mark.begins)])

    def members(self) -> dict[int, bytes]:
        """The processes of the command that still run, with their environment variables."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                variables = (place / "environ").read_bytes()
                if f"{TOKEN}={self.token}".encode() in variables.split(b"\0"):
                    found[int(place.name)] = variables
        return found

    def read(self, seconds: float) -> bool:
        """Reads what the process has printed and reported; returns whether there was anything."""
        ready = wait([pipe for pipe in (self.output, self.reports) if not pipe.closed], seconds)
        for pipe in ready:
            try:
                if pipe is self.reports:
                    self.marks.append(pipe.recv())
                elif data := os.read(pipe.fileno(), 65536):
                    self.text += data
                else:
                    pipe.close()
            except (EOFError, OSError):
                pipe.close()
        return bool(ready)

    def reaches(self, phase: str, occurrence: int, begins: bool = True) -> bool:
        """Waits until a phase begins or ends; returns False if the process ends before."""
        return self._until(
            lambda: sum((mark.phase, mark.begins) == (phase, begins) for mark in self.marks) >= occurrence
        )

    def prints(self, text: str) -> bool:
        """Waits for a text in the output; returns False if the process ends before."""
        return self._until(lambda: text.encode() in self.text)

    def send(self, number: int) -> None:
        """Sends a signal to the process, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Waits for the end; returns the exit status, −number after a signal, and what was printed."""
        self._until(lambda: False)
        for pipe in (self.output, self.reports):
            pipe.close()
        return self.status, self.text.decode(errors="replace")

    def _until(self, done: Callable[[], bool]) -> bool:
        """Reads until something is true, or the process has ended."""
        end = time.monotonic() + LIMIT
        while not done():
            if not self.read(0.2) and self.status is not None:
                return False
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"the process hangs: {self.text.decode(errors='replace')[-500:]}")
        return True


def start(*words: str, trap: Trap | None = None) -> Running:
    """Starts ``qd`` with these words.

    Args:
        words: The command and its options.
        trap: What happens at one of its file operations.
    """
    pipes = [_context().Pipe(duplex=False) for _ in range(2)]
    process = _context().Process(target=run, args=(words, pipes[0][1], pipes[1][1], trap))
    process.start()
    for _, written in pipes:
        written.close()
    return Running(process, pipes[0][0], pipes[1][0])


def finish(*words: str, **options: Any) -> tuple[int, str]:
    """Runs ``qd`` with these words; returns the exit status and what was printed."""
    return start(*words, **options).end()


def launch(*command: str) -> Running:
    """Starts a command in a session of its own, such as a new Python; it reports no marks."""
    (output, written), (reports, unused) = (multiprocessing.Pipe(duplex=False) for _ in range(2))
    token = f"{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", TOKEN: token},
        stdin=subprocess.DEVNULL,
        stdout=written.fileno(),
        stderr=written.fileno(),
        start_new_session=True,
    )
    for pipe in (written, unused):
        pipe.close()
    return Running(process, output, reports, token=token)


@cache
def _context() -> Any:
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([run.__module__])
    return context
