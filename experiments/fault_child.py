"""The process that a fault hits: runs ``qd``, reports its phases, and can end at a file operation."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from qd.callbacks.pareto_log import ParetoLog
from qd.callbacks.step_folders import StepFolders
from qd.cli.main import main
from qd.commands import train
from qd.evaluation.evaluator import Evaluator
from qd.modules.distillation import DiversityDistillation
from qd.runs.checkpoints import AtomicCheckpoints

WRITING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


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


def run(words: tuple[str, ...], output: Connection, reports: Connection, trap: Trap | None) -> None:
    """Runs ``qd`` with these words in this process, which ends; see :func:`experiments.fault_processes.start`."""
    os.setsid()
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
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
    """Counts the operations that change the folder; at the trap's number, kills this process or fills the disk."""
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
