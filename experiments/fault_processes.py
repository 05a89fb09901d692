"""``qd`` in real processes that report where they are, so that a fault can hit them there.

A fork server imports everything once; each command is then a process of its own after a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from qd.callbacks.pareto_log import ParetoLog
from qd.callbacks.step_folders import StepFolders
from qd.cli.main import main
from qd.commands import train
from qd.evaluation.evaluator import Evaluator
from qd.modules.distillation import DiversityDistillation
from qd.runs.checkpoints import AtomicCheckpoints

ROOT = Path(__file__).resolve().parents[1]
WRITING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
LIMIT = 300.0  # seconds; a command that takes longer hangs
NOBODY = 65534
TOKEN = "QD_FAULT_TOKEN"


class Mark(NamedTuple):
    """What a process reports: a phase begins or ends, or the next file operation follows.

    Attributes:
        phase: ``start-up``, ``step``, ``measurement``, ``points``, ``checkpoint``, ``folder`` or ``operation``.
        begins: Whether it begins.
        number: The optimiser step of a checkpoint; the number of an operation; else 0.
        seconds: Time.
    """

    phase: str
    begins: bool
    number: int
    seconds: float


@dataclass(frozen=True)
class Trap:
    """What happens to a process before one of its file operations.

    Attributes:
        folder: Only operations in this folder count.
        operation: Number of the operation, from 1.
        full: Whether no file can grow from then on, as on a full disk; else the process is killed.
    """

    folder: Path
    operation: int
    full: bool = False


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


def start(*words: str, trap: Trap | None = None, nobody: bool = False) -> Running:
    """Starts ``qd`` with these words.

    Args:
        words: The command and its options.
        trap: What happens at one of its file operations.
        nobody: Whether the process gives up the rights of root.
    """
    pipes = [_context().Pipe(duplex=False) for _ in range(2)]
    process = _context().Process(target=_run, args=(words, pipes[0][1], pipes[1][1], trap, nobody))
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
    context.set_forkserver_preload([__name__])
    return context


def _run(words: tuple[str, ...], output: Connection, reports: Connection, trap: Trap | None, nobody: bool) -> None:
    os.setsid()
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    if nobody and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    _report_phases(lambda *mark: reports.send(Mark(*mark, time.monotonic())))
    if trap is not None:
        _set(trap, reports)
    sys.argv = ["qd", *words]
    reports.send(Mark("start-up", True, 0, time.monotonic()))
    sys.exit(main(list(words)))


def _report_phases(report: Callable[[str, bool, int], None]) -> None:
    """Makes this process report its phases."""

    def reporting(owner: Any, name: str, phase: str, number: Callable[..., int | None] = lambda *_: 0) -> None:
        function = getattr(owner, name)

        def reported(*arguments: Any, **options: Any) -> Any:
            if (value := number(*arguments)) is None:
                return function(*arguments, **options)
            report(phase, True, value)
            result = function(*arguments, **options)
            report(phase, False, value)
            return result

        setattr(owner, name, reported)

    def due(saver: StepFolders, trainer: Any, module: Any) -> int | None:
        step = trainer.global_step
        return step if step % saver.every == 0 or step == trainer.max_steps else None

    def fitting(*_: Any) -> None:
        report("start-up", False, 0)

    reporting(train, "fit_until_stopped", "start-up", fitting)
    reporting(DiversityDistillation, "training_step", "step")
    reporting(Evaluator, "measure", "measurement")
    reporting(ParetoLog, "_record", "points")
    reporting(AtomicCheckpoints, "save_checkpoint", "checkpoint", lambda _, content, *rest: content["global_step"])
    reporting(StepFolders, "on_step_end", "folder", due)


def _set(trap: Trap, reports: Connection) -> None:
    """Counts the operations that change the folder, and springs the trap at its number."""
    owner, folder, count = os.getpid(), str(trap.folder), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event in WRITING or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not writes or os.getpid() != owner or not str(arguments[0]).startswith(folder):
            return
        count += 1
        reports.send(Mark("operation", True, count, time.monotonic()))
        if count == trap.operation:
            if not trap.full:
                os.kill(owner, signal.SIGKILL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    sys.addaudithook(hook)
