"""Several commands at once, one single-threaded process a core, and none left behind."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heapreplace
from pathlib import Path

POLL = 0.5  # seconds
TELL_EVERY = 30.0  # seconds
PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal that a process gets when its parent has died
_STEP = re.compile(r"step (\d+)/\d+ · ([\d.]+) s/step")


@dataclass(frozen=True)
class Job:
    """A command, the file that its output is added to, and what is done before it starts."""

    name: str
    command: Callable[[], list[str]]
    log: Path
    prepare: Callable[[], None] = lambda: None

    def progress(self) -> tuple[int, float] | None:
        """The last step that a training run printed, and its seconds a step."""
        found = _STEP.findall(self.log.read_text(encoding="utf-8", errors="replace")) if self.log.is_file() else []
        return (int(found[-1][0]), float(found[-1][1])) if found else None


def lasting(durations: Sequence[float], at_once: int) -> float:
    """How long :func:`run_jobs` takes for jobs that take so long each: none can be split, and each waits for its turn.

    Example:
        >>> lasting([2.0, 2.0, 2.0], at_once=2)
        4.0
    """
    ends = [0.0] * at_once
    for duration in durations:
        heapreplace(ends, ends[0] + duration)
    return max(ends)


def run_jobs(jobs: Sequence[Job], at_once: int, tell: Callable[[list[Job], list[Job], list[Job]], str]) -> list[Job]:
    """Runs all, at most so many at once; a failing one does not stop the others.

    Args:
        jobs: in the order in which they start.
        at_once: processes.
        tell: the line of progress, from the jobs that are done, running and failed.

    Returns:
        The jobs that failed.

    Raises:
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP (a closed terminal), when the children, which were told too, have
            stopped.
    """
    with _ended_as_by_ctrl_c():
        return _run(list(jobs), at_once, tell)


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP, which would end this process at once, raise KeyboardInterrupt; what ``nohup`` ignores stays
    ignored. The next ones change nothing, as a closing terminal sends several: only Ctrl-C makes haste."""
    if threading.current_thread() is not threading.main_thread():  # the others may not set handlers
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    former = {number: handler for number, handler in former.items() if handler is not signal.SIG_IGN}

    def interrupt(*_: object) -> None:
        for number in former:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        for number in former:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _run(waiting: list[Job], at_once: int, tell: Callable[[list[Job], list[Job], list[Job]], str]) -> list[Job]:
    running, done, failed = {}, [], []
    told = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[_start(job)] = job
                print(f"{job.name}: started, log {job.log}", flush=True)
            time.sleep(POLL)
            for child in [child for child in running if child.poll() is not None]:
                job = running.pop(child)
                (failed if child.returncode else done).append(job)
                print(_ended(job, child.returncode), flush=True)
            if time.monotonic() - told > TELL_EVERY and running:
                told = time.monotonic()
                print(tell(done, list(running.values()), failed), flush=True)
    finally:
        _stop(list(running))
    return failed


def _start(job: Job) -> subprocess.Popen:
    """In a session of its own: Ctrl-C reaches it once, from here, and not a second time from the terminal."""
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
            preexec_fn=_tie(),
        )


def _tie() -> Callable[[], None]:
    """What a child does before its command: it hears SIGINT, which a script's ``&`` has this process ignore, and on
    Linux it gets one if this process dies without a word, as by SIGKILL."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # here, since a forked child should load nothing

    def tie() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if libc:
            libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGINT))

    return tie


def _ended(job: Job, code: int) -> str:
    if not code:
        return f"{job.name}: done"
    lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join([f"{job.name}: FAILED with status {code}; the end of {job.log}:", *(f"  {x}" for x in lines[-5:])])


def _stop(children: Sequence[subprocess.Popen]) -> None:
    """Ctrl-C for each; once more, if the user does not want to wait until they have saved."""
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
