"""A disk that is full from a random write on, and folders that cannot be written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.fault_case import Fault
from experiments.fault_child import Trap
from experiments.fault_processes import finish, start
from experiments.fault_run import STEPS, first, half_written, loss, operations, reference

COMMANDS = {
    "sample": ("sample", "--prompt=calm piano", "--n=2", "--seconds=0.5"),
    "merge": ("merge", "--a=beta0", "--b=beta15"),
}
DISK = 800 * 2**20
"""Size of a disk in memory; the run needs about half of it."""


def faults(seed: int, count: int) -> list[Fault]:
    """Returns ``count`` full disks for training and half as many for other commands, and read-only folders."""
    listed = []
    for number in range(count):
        check = partial(full_disk, f"{seed} {number}")
        listed.append(Fault("full disk: train", f"seed {seed}, number {number}", check))
    for number, command in zip(range(count // 2), cycle(COMMANDS)):
        check = partial(full_disk_of_command, COMMANDS[command], f"{seed} {number}")
        listed.append(Fault("full disk: sample, merge", f"{command}, seed {seed}, number {number}", check))
    if can_mount():
        for phase in ("checkpoint", "folder", "points", "step"):
            listed.append(
                Fault("disk filled by another program", f"before a {phase} phase", partial(filled_disk, phase))
            )
    if can_mount() or os.geteuid() != 0:
        for resume, name in ((False, "for a new run"), (True, "of a run to resume")):
            listed.append(Fault("read-only folder", name, partial(read_only, resume)))
    return listed


def full_disk(seed: str, folder: Path) -> str | None:
    """No file grows from a random file operation on; afterwards there is space again, and the run resumes."""
    operation = random.Random(seed).randint(1, reference().operations)
    running = start(*first(folder), trap=Trap(folder, operation, full=True))
    status, text = running.end()
    name = f"operation {operation}"
    return _reported(status, text, folder, name) or loss(folder, running.saved) or _resumed(folder, name)


def filled_disk(phase: str, folder: Path) -> str | None:
    """Another program fills a real disk during the run; then its file is removed, and the run resumes."""
    with mounted(folder):
        running, filler = start(*first(folder)), folder / "filler"
        running.reaches(phase, 2)
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(2**20)):
                pass
        status, text = running.end()
        filler.unlink()
        return _reported(status, text, folder, phase) or loss(folder, running.saved) or _resumed(folder, phase)


def _reported(status: int, text: str, folder: Path, name: str) -> str | None:
    """Checks that a command that met a full disk said so in one line, and left nothing half-written."""
    if status not in (0, 2) or "Traceback" in text:
        return f"{name}: exit status {status}: {text[-2000:]}"
    if status == 2 and not ("Free some space" in text and str(folder) in text.splitlines()[-1]):
        return f"{name}: the message names no file and no way out: {text[-1000:]}"
    return half_written(folder)


def _resumed(folder: Path, name: str) -> str | None:
    status, text = finish(*first(folder))
    return f"{name}: it does not resume: {status}: {text[-1000:]}" if status != 0 else loss(folder, STEPS, True)


def full_disk_of_command(words: tuple[str, ...], seed: str, folder: Path) -> str | None:
    """No file grows from a random file operation on: what is there is complete, and the same command then succeeds."""
    whole, out = folder / "whole", folder / "out"
    running = start(*words, f"--out={whole}", trap=Trap(folder, 0))
    status, text = running.end()
    if status != 0:
        return f"without a fault: exit status {status}: {text[-1000:]}"
    operation = random.Random(seed).randint(1, operations(running.marks))
    status, text = finish(*words, f"--out={out}", trap=Trap(folder, operation, full=True))
    name = f"operation {operation}"
    if problem := _reported(status, text, folder, name):
        return problem
    right = _contents(whole)
    if wrong := [file for file, content in _contents(out).items() if right.get(file) != content]:
        return f"{name}: half-written: {wrong}"
    status, text = (0, "") if status == 0 else finish(*words, f"--out={out}")
    return None if status == 0 and _contents(out) == right else f"{name}: then: exit status {status}: {text[-1000:]}"


def _contents(folder: Path) -> dict[str, bytes]:
    """Sounds and weights by file name."""
    files = (file for ending in ("wav", "safetensors") for file in folder.rglob(f"*.{ending}"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def read_only(resume: bool, folder: Path) -> str | None:
    """Starts or resumes a run in a folder that cannot be written: refused at once, nothing changed."""
    root = os.geteuid() == 0  # may write in spite of permissions, but not on a read-only disk
    with mounted(folder) if root else nullcontext():
        if resume:
            running = start(*first(folder))
            running.reaches("step", 3)
            running.send(signal.SIGKILL)
            running.end()
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        places = [path for path in (folder, *before) if path.is_dir()]
        if root:
            remount(folder, "ro")
        for place in [] if root else places:
            place.chmod(0o555)
        status, text = finish(*first(folder))
        if root:
            remount(folder, "rw")
        for place in [] if root else places:
            place.chmod(0o755)
        reason = "read-only file system" if root else "permission denied"
        if status != 2 or reason not in text or "Traceback" in text or str(folder) not in text:
            return f"exit status {status}: {text[-1000:]}"
        if {path: path.stat().st_mtime_ns for path in folder.rglob("*")} != before:
            return "the folder was changed"
        return _resumed(folder, "afterwards")


def can_mount() -> bool:
    """Whether this process may mount a disk in memory."""
    with TemporaryDirectory() as folder, suppress(OSError, subprocess.CalledProcessError), mounted(Path(folder)):
        return True
    return False


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A small disk of its own in this folder."""
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "tmpfs"]
    subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def remount(folder: Path, how: str) -> None:
    """Makes a mounted disk read-only (``ro``) or writable (``rw``)."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True, capture_output=True)
