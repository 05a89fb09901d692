"""Output that nobody reads, or that the terminal cannot show, in real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT

PROGRAM = """
import os, signal, sys
sys.path.insert(0, ".")
from qd.runs.streams import keep_streams, print_from_handler
keep_streams()
"""


def run(code: str, command: str = "{}", **options: object) -> subprocess.CompletedProcess[str]:
    """Runs the code in a shell command."""
    text = command.format(f'{sys.executable} -c "$CODE"')
    environment = {"CODE": PROGRAM + code, "PATH": "/usr/bin:/bin", **options.pop("env", {})}
    return subprocess.run(
        ["bash", "-c", text], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, **options
    )


LONG = """
for number in range(20000):
    print("line", number)
    print("problem", number, file=sys.stderr)
os.write(1, b"direct\\n")
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize(
    "command",
    [
        "({} {file} | head -1)",
        "({} {file} 2>&1 >/dev/null | head -1)",
        "{} {file} > /dev/full 2>&1",
        "{} {file} >&- 2>&-",
        "PYTHONUNBUFFERED=1 {} {file} | head -1",
    ],
)
def test_the_work_goes_on_if_output_cannot_be_written(tmp_path, command):
    result = run(LONG, command.replace("{file}", str(tmp_path / "file")))
    assert (tmp_path / "file").read_text() == "done", result.stderr[-500:]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_letter_that_the_terminal_does_not_have_is_escaped(encoding):
    result = run("print('β')", env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("β" if encoding == "utf-8" else "\\u03b2")


def test_a_signal_handler_can_print_during_a_print():
    code = """
signal.signal(signal.SIGUSR1, lambda *_: print_from_handler("from the handler"))
write = type(sys.stdout.buffer.raw).write
def interrupted(raw, data):
    type(raw).write = write
    os.kill(os.getpid(), signal.SIGUSR1)
    return write(raw, data)
type(sys.stdout.buffer.raw).write = interrupted
print("a line")
"""
    result = run(code)
    assert sorted(result.stdout.splitlines()) == ["a line", "from the handler"], result.stderr
