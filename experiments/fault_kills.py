"""Kills a run with SIGKILL at random moments, resumes it, and compares it with an uninterrupted one."""

from __future__ import annotations

import random
import signal
import sys
import time
from functools import partial
from itertools import cycle
from pathlib import Path

from experiments.fault_case import Fault
from experiments.fault_child import Trap
from experiments.fault_processes import Running, launch, start
from experiments.fault_run import first, loss, reference

FRESH_SECONDS = 15.0
"""Latest kill of a new interpreter, which needs some seconds for its imports."""
CHAIN = 5
"""Kills of one run: each one hits the process that resumes after the last one."""
PHASES = {
    "file operation": ("operation",),
    "training step": ("step",),
    "checkpoint": ("checkpoint",),
    "start-up": ("start-up",),
    "measurement": ("measurement",),
    "points, figures": ("points",),
    "step, then resume": ("step", "start-up"),
    "step folder": ("folder",),
    "new interpreter": ("python",),
}
"""Phases of the kills of one run, in turn. ``operation`` is a kill right before a random file operation,
``python`` one at a random moment of a new Python."""


def faults(seed: int, count: int) -> list[Fault]:
    """Returns checks that kill ``count`` times in total, every third chain at file operations."""
    sizes = [min(CHAIN, count - done) for done in range(0, count, CHAIN)]
    timed = cycle(list(PHASES)[1:])
    kinds = [next(timed) if number % 3 else next(iter(PHASES)) for number in range(len(sizes))]
    listed = []
    for number, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        check = partial(chain, PHASES[kind], f"{seed} {number}", size)
        listed.append(Fault(f"kill −9: {kind}", f"seed {seed}, run {number}", check, size))
    return listed


def chain(phases: tuple[str, ...], seed: str, kills: int, folder: Path) -> str | None:
    """Kills one run after another, until there were enough kills, and lets the last one end."""
    draw, done, number, least = random.Random(seed), 0, 0, -1
    aims = cycle(phases)
    while True:
        runs = folder / str(number)
        aim = next(aims) if done < kills else None
        running = _start(runs, aim, draw)
        status, text = running.end()
        finished = status != -signal.SIGKILL
        if finished and status != 0:
            return f"after {done} kills the run ended with status {status}: {text[-1000:]}"
        done += not finished
        least = max(least, running.saved)
        if lost := loss(runs, least, finished):
            return f"after {done} kills, the last one {aim}: {lost}"
        if finished and done >= kills:
            return None
        if finished:  # before the kill: the next one hits a new run
            number, least, aims = number + 1, -1, cycle(phases)


def _start(runs: Path, aim: str | None, draw: random.Random) -> Running:
    """Starts or resumes the run, and kills it at the aim; None lets it end."""
    if aim == "operation":
        return start(*first(runs), trap=Trap(runs, draw.randint(1, reference().operations)))
    if aim == "python":
        running = launch(sys.executable, "-m", "qd", *first(runs))
        time.sleep(draw.uniform(0, FRESH_SECONDS))
        running.send(signal.SIGKILL)
        return running
    running = start(*first(runs))
    if aim is None:
        return running
    occurrence = draw.randint(1, 3) if aim == "step" else 1
    delay = draw.uniform(0, reference().seconds(aim))
    if aim in ("checkpoint", "measurement", "folder", "points"):
        occurrence = draw.randint(1, 2)
    if running.reaches(aim, occurrence):
        time.sleep(delay)
        running.send(signal.SIGKILL)
    return running
