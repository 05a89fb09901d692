"""Signals at random moments, a second writer, closed output, and a killed rank of two."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from contextlib import suppress
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.fault_case import Fault
from experiments.fault_processes import Running, finish, launch, start
from experiments.fault_run import NAME, STEPS, checkpoint_state, first, loss, reference

SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
PHASES = ("start-up", "step", "measurement", "points", "checkpoint", "folder")
LAUNCHERS = {
    "torchrun": ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
    "Lightning's launcher": (),
}
ENDS_WITHIN = 90.0  # seconds


def faults(seed: int, count: int) -> list[Fault]:
    """Returns ``count`` signals, a second writer, closed output, and killed ranks."""
    draw, listed = random.Random(seed), []
    for number, name in zip(range(count), cycle(SIGNALS)):
        phase = PHASES[(number + number // len(SIGNALS)) % len(PHASES)]
        check = partial(stop, name, phase, f"{seed} {number}")
        listed.append(Fault("stop signal", f"{name} in a {phase} phase, seed {seed}, number {number}", check))
    for phase in ("step", "measurement"):
        listed.append(Fault("second writer", f"during a {phase}", partial(second_writer, phase)))
        listed.append(Fault("closed output", f"from a {phase} on", partial(closed_output, phase)))
    listed.append(Fault("closed output", "from the start", partial(closed_output, "start-up")))
    for launcher in LAUNCHERS:
        rank, after = draw.randint(0, 1), draw.randint(1, STEPS - 2)
        check = partial(killed_rank, launcher, rank, after)
        listed.append(Fault("rank of two killed", f"rank {rank} of {launcher} after step {after}", check))
    return listed


def stop(name: str, phase: str, seed: str, folder: Path) -> str | None:
    """Sends a signal at a random moment, and resumes."""
    draw, number = random.Random(seed), getattr(signal, name)
    running = start(*first(folder))
    running.reaches(phase, draw.randint(1, 2) if phase != "start-up" else 1)
    time.sleep(draw.uniform(0, reference().seconds(phase)))
    running.send(number)
    status, text = running.end()
    early = status == -number and not (folder / NAME).exists()  # before the program could handle it
    if status not in (0, 128 + number) and not early:
        return f"exit status {status}; expected {128 + number}: {text[-1000:]}"
    if status == 128 + number and f"stopped by {'Ctrl-C' if name == 'SIGINT' else name}" not in text:
        return f"no message: {text[-1000:]}"
    said = re.search(r"step (\d+) is saved", text)
    return loss(folder, int(said[1]) if said else running.saved, status == 0) or resumed(folder)


def resumed(folder: Path) -> str | None:
    """Lets the run end."""
    status, text = finish(*first(folder))
    return f"it does not resume: status {status}: {text[-1000:]}" if status != 0 else loss(folder, STEPS, True)


def second_writer(phase: str, folder: Path) -> str | None:
    """Resumes a run, and starts one of the same name, while another process trains it."""
    running = start(*first(folder))
    running.reaches(phase, 2)
    running.send(signal.SIGSTOP)
    attempts = [finish(*words) for words in (first(folder), first(folder / "none")[:-1] + [f"trainer.runs={folder}"])]
    running.send(signal.SIGCONT)
    status, text = running.end()
    if wrong := [attempt for attempt in attempts if attempt[0] != 2 or "Traceback" in attempt[1]]:
        return f"a second writer was not refused: {wrong}"
    if status != 0:
        return f"the first writer ended with status {status}: {text[-1000:]}"
    return loss(folder, STEPS, True)


def closed_output(phase: str, folder: Path) -> str | None:
    """Closes the other end of standard output and standard error, as ``| head`` does."""
    running = start(*first(folder))
    if phase != "start-up":
        running.reaches(phase, 1)
    running.output.close()
    status, _ = running.end()
    return f"exit status {status}" if status != 0 else loss(folder, STEPS, True)


def killed_rank(launcher: str, rank: int, step: int, folder: Path) -> str | None:
    """Kills one of two ranks after a step: both must end; then resumes, and compares with two undisturbed ranks."""
    running = two_ranks(launcher, folder)
    if not running.prints(f"step {step}/"):
        return f"the run failed before: {running.end()}"
    variable = f"LOCAL_RANK={rank}".encode()  # Lightning's own first process has none
    ranks = [process for process, variables in running.members().items() if variable in variables.split(b"\0")]
    os.kill((ranks or [running.process.pid])[0], signal.SIGKILL)
    end = time.monotonic() + ENDS_WITHIN
    while (left := running.members()) and time.monotonic() < end:
        running.read(0.5)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    status, text = running.end()
    if left:
        return f"{len(left)} processes still run after {ENDS_WITHIN:.0f} s: {text[-1000:]}"
    if status == 0:
        return f"exit status 0: {text[-1000:]}"
    status, text = two_ranks(launcher, folder).end()
    if status != 0:
        return f"it does not resume: status {status}: {text[-1000:]}"
    if checkpoint_state(folder / NAME) != undisturbed_ranks():
        return "the resumed run differs from an uninterrupted one of two ranks"
    return None


def two_ranks(launcher: str, folder: Path) -> Running:
    """Starts or resumes the run with two ranks."""
    words = first(folder)
    devices = [] if "--resume" in words else ["trainer.devices=2"]
    return launch(sys.executable, *LAUNCHERS[launcher], "-m", "qd", *words, *devices)


@cache
def undisturbed_ranks() -> tuple[int, str]:
    """Final step and state of two ranks."""
    with TemporaryDirectory(prefix="qd-ranks-") as folder:
        status, text = two_ranks("Lightning's launcher", Path(folder)).end()
        if status != 0:
            raise RuntimeError(f"the run of two ranks without a fault failed: {text}")
        return checkpoint_state(Path(folder) / NAME)
