"""Runs several commands in parallel, one single-threaded process per core, and stops them all on exit."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from pathlib import Path

from qd.runs.signals import stop_signals

POLL = 0.5  # seconds
REPORT_EVERY = 30.0  # seconds
PR_SET_PDEATHSIG = 1  # prctl option of Linux: the signal that a process gets when its parent dies
Progress = Callable[[list["Job"], list["Job"], list["Job"]], str]
"""Returns the progress line from the jobs that are done, running and failed."""
_STEP = re.compile(r"step (\d+)/\d+ · ([\d.]+) s/step")


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        name: Name in messages.
        command: Returns the command.
        log: File that the output is appended to.
        prepare: Called before the command starts.
    """

    name: str
    command: Callable[[], list[str]]
    log: Path
    prepare: Callable[[], None] = lambda: None

    def progress(self) -> tuple[int, float] | None:
        """The last step that a training run printed, and its seconds per step; None if it printed none."""
        lines = _STEP.findall(self.log.read_text(encoding="utf-8", errors="replace")) if self.log.is_file() else []
        return (int(lines[-1][0]), float(lines[-1][1])) if lines else None


def total_duration(durations: Sequence[float], parallel: int) -> float:
    """Time that :func:`run_jobs` needs for jobs of the given durations, which start in order and cannot be split.

    Example:
        >>> total_duration([2.0, 2.0, 2.0], parallel=2)
        4.0
    """
    ends = [0.0] * parallel
    for duration in durations:
        heapreplace(ends, ends[0] + duration)
    return max(ends)


def run_jobs(jobs: Sequence[Job], parallel: int, progress: Progress) -> list[Job]:
    """Runs all jobs; a failing job does not stop the others.

    Args:
        jobs: Jobs in the order in which they start.
        parallel: Number of parallel processes.
        progress: Returns the progress line from the jobs that are done, running and failed.

    Returns:
        The jobs that failed.

    Raises:
        KeyboardInterrupt: After a stop signal, once the children, which get SIGINT, have stopped.
    """
    with stop_signals():
        return _run(list(jobs), parallel, progress)


def _run(waiting: list[Job], parallel: int, progress: Progress) -> list[Job]:
    running, done, failed = {}, [], []
    reported = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                running[_start(job)] = job
                print(f"{job.name}: started, log {job.log}", flush=True)
            time.sleep(POLL)
            for child in [child for child in running if child.poll() is not None]:
                job = running.pop(child)
                (failed if child.returncode else done).append(job)
                print(_ended(job, child.returncode), flush=True)
            if time.monotonic() - reported > REPORT_EVERY and running:
                reported = time.monotonic()
                print(progress(done, list(running.values()), failed), flush=True)
    finally:
        _stop(list(running))
    return failed


def _start(job: Job) -> subprocess.Popen:
    """Starts a job in its own session, so that it gets Ctrl-C once from here and not again from the terminal."""
    job.prepare()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with job.log.open("ab") as log:
        return subprocess.Popen(
            job.command(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            preexec_fn=_child_setup(),
        )


def _child_setup() -> Callable[[], None]:
    """Returns the function that a child calls before its command.

    It restores the default handling of SIGINT, which a shell's ``&`` makes this process ignore. On Linux it also makes
    the child get SIGINT if this process is killed.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here, because a forked child should not

    def setup() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if libc:
            libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGINT))

    return setup


def _ended(job: Job, code: int) -> str:
    if not code:
        return f"{job.name}: done"
    lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join([f"{job.name}: FAILED with status {code}; the end of {job.log}:", *(f"  {x}" for x in lines[-5:])])


def _stop(children: Sequence[subprocess.Popen]) -> None:
    """Sends SIGINT to all children and waits; a second Ctrl-C of an impatient user is passed on."""
    for child in children:
        _signal(child, signal.SIGINT)
    while any(child.poll() is None for child in children):
        try:
            for child in children:
                child.wait()
        except KeyboardInterrupt:
            for child in children:
                _signal(child, signal.SIGINT)


def _signal(child: subprocess.Popen, number: int) -> None:
    if child.poll() is None:
        os.kill(child.pid, number)
