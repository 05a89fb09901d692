"""Runs one command on a bad input, in a forked child process, and judges the answer.

A handled input ends with the expected exit status and exactly one message, which contains the expected facts. There is
no traceback, no new file and no executed code.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from experiments.fault_case import Fault

ROOT = Path(__file__).resolve().parents[1]
CANARY = "executed"
"""Name of the file that appears in the working folder if code of an input is run."""
CODE = f"import pathlib\npathlib.Path({CANARY!r}).touch()\n"
SECONDS = 240
"""Longest time of an attempt: the machine may be busy."""
MEMORY = 24 * 2**30
"""Largest address space of an attempt."""
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_NTASKS")

Content = str | bytes | Callable[[Path], None]
"""Content of a file, or a function that makes what is at its path."""


@dataclass(frozen=True)
class Attempt:
    """A bad input and the expected answer.

    Attributes:
        words: Words of the command line after ``qd``.
        files: Content by path, relative to the working folder; the path of a folder ends with "/".
        facts: Texts that the answer must contain.
        status: Expected exit status; with 0, the command may write files.
        absent: Texts that no new page may contain.
        environment: Environment variables.
        program: Program that gets the words; None calls the command line in a forked process.
        lines: Largest number of lines of the answer.
    """

    words: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    status: int = 2
    absent: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] | None = None
    lines: int = 12

    def check(self, folder: Path) -> str | None:
        """Makes the input in a new folder and runs the command; returns what is wrong with the answer, if anything."""
        work = folder / "work"
        work.mkdir(parents=True)
        for name, content in self.files.items():
            _make(work / name, content, name.endswith("/"))
        before = _listing(work)
        started = time.monotonic()
        status = self._run(folder, work)
        if time.monotonic() - started > SECONDS:
            return f"still running after {SECONDS} s"
        return self._problem(folder, status, sorted(_listing(work) - before), work)

    def _run(self, folder: Path, work: Path) -> int:
        environment = {**os.environ, "QD_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", **self.environment}
        for name in {*RANK_VARIABLES} - {*self.environment}:
            environment.pop(name, None)
        answers = folder / "stdin"
        answers.write_text("y\n" * 100)
        with answers.open() as stdin, (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
            if self.program is None:
                return _forked(self.words, work, environment, (stdin.fileno(), out.fileno(), err.fileno()))
            process = subprocess.Popen(
                [*self.program, *self.words], cwd=work, env=environment, stdin=stdin, stdout=out, stderr=err
            )
            try:
                return process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()

    def _problem(self, folder: Path, status: int, made: list[str], work: Path) -> str | None:
        error, output = read(folder / "stderr"), read(folder / "stdout")
        answer = error + output
        command = f"qd {self.words[0]}:"
        written = "".join(read(work / name) for name in made if (work / name).is_file())
        pages = "".join(read(work / name) for name in made if name.endswith(".html"))
        checks = {
            f"code was executed: {CANARY} exists": any(Path(name).name == CANARY for name in made),
            f"exit status {status}; expected {self.status}": status != self.status,
            "a traceback": "Traceback" in answer,
            f"{error.count(command)} messages": self.status == 2 and not self.program and error.count(command) != 1,
            f"{len(error.splitlines())} lines": len(error.splitlines()) > self.lines,
            f"left behind: {', '.join(made[:5])}": self.status != 0 and bool(made),
            "control characters": any(ord(letter) < 32 and letter not in "\n\t\r" for letter in answer),
            **{f"no {fact!r} in the answer": fact not in answer + written for fact in self.facts},
            **{f"{text!r} in a new page": text in pages for text in self.absent},
        }
        problems = [problem for problem, found in checks.items() if found]
        return f"{'; '.join(problems)}: {' '.join(answer.split())[:300]}" if problems else None


def bad(kind: str, name: str, line: str, *facts: str, **settings: object) -> Fault:
    """A fault that is a bad input; the command's words are split as in a shell, see :class:`Attempt` for the rest."""
    return Fault(kind, name, Attempt(tuple(shlex.split(line)), facts=facts, **settings).check)


def read(file: Path) -> str:
    """Returns the text of a file, whatever its encoding is."""
    return file.read_bytes().decode("utf-8", "replace")


def _make(path: Path, content: Content, folder: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif folder:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _listing(folder: Path) -> set[str]:
    """Files by name; an empty folder is no output."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return {os.fsencode(path.relative_to(folder)).decode("utf-8", "replace") for path in files}


@functools.cache
def import_commands() -> None:
    """Imports what the commands use, once for all forked children."""
    for file in sorted((ROOT / "qd" / "commands").glob("[!_]*.py")):
        import_module(f"qd.commands.{file.stem}")


def _forked(words: tuple[str, ...], work: Path, environment: Mapping[str, str], streams: tuple[int, ...]) -> int:
    """Calls the command line in a forked child; returns its exit status, or minus the number of a signal."""
    import_commands()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _called(words, work, environment, streams)
        finally:
            os._exit(status)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL


def _called(words: tuple[str, ...], work: Path, environment: Mapping[str, str], streams: tuple[int, ...]) -> int:
    from qd.cli.main import main

    for target, descriptor in enumerate(streams):
        os.dup2(descriptor, target)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        for number, mode in enumerate(("r", "w", "w"))
    )
    os.chdir(work)
    os.environ.clear()
    os.environ.update(environment)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        status = main(words)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else print(stop.code, file=sys.stderr) or 1
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return status
