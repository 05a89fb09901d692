"""Commands run at once: failures are told, Ctrl-C reaches the children, none stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from qd.reproduction.processes import Job, run_jobs

ROOT = Path(__file__).resolve().parents[2]


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name, lambda: [sys.executable, "-c", textwrap.dedent(code)], folder / "logs" / f"{name}.log")


def test_a_failing_one_is_told_and_the_others_go_on(tmp_path, capsys):
    wrong = job(tmp_path, "wrong", "print('about to'); raise SystemExit('no such thing')")
    right = [job(tmp_path, f"right{i}", "import os; print(os.environ['OMP_NUM_THREADS'])") for i in range(2)]
    assert run_jobs([wrong, *right], 1, lambda *_: "") == [wrong]
    told = capsys.readouterr().out
    assert "wrong: FAILED with status 1" in told and "no such thing" in told and "right1: done" in told
    assert (tmp_path / "logs" / "right0.log").read_text() == "1\n"


def test_so_many_run_at_once(tmp_path):
    code = """
        import pathlib, time
        here = pathlib.Path(r"{}")
        mine = here / "{}"
        mine.touch(); time.sleep(0.6); print(len(list(here.glob("run-*")))); mine.unlink()
    """
    jobs = [job(tmp_path, f"j{i}", code.format(tmp_path, f"run-{i}")) for i in range(4)]
    assert run_jobs(jobs, 2, lambda *_: "") == []
    assert max(int(each.log.read_text()) for each in jobs) <= 2


def test_progress_is_read_from_the_log(tmp_path):
    one = job(tmp_path, "a", "")
    assert one.progress() is None
    one.log.parent.mkdir()
    one.log.write_text("step 10/200 · 1.50 s/step · KL\nstep 20/200 · 1.25 s/step · KL\n")
    assert one.progress() == (20, 1.25)


def test_ctrl_c_stops_the_children_and_waits_for_them(tmp_path):
    child = """
        import signal, sys, time
        def stop(*_):
            time.sleep(0.3); print("saved", flush=True); sys.exit(130)
        signal.signal(signal.SIGINT, stop)
        print("here", flush=True)
        time.sleep(60)
    """
    script = tmp_path / "runner.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom qd.reproduction.processes import Job, run_jobs\n"
        f"command = [sys.executable, '-c', {textwrap.dedent(child)!r}]\n"
        "jobs = [Job(n, lambda: command, Path(sys.argv[1]) / n) for n in 'ab']\n"
        "try:\n    run_jobs(jobs, 2, lambda *_: '')\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runner = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    logs = [tmp_path / name for name in "ab"]
    deadline = time.monotonic() + 60
    while not all(log.is_file() and "here" in log.read_text() for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(timeout=30) == 130
    assert all(log.read_text() == "here\nsaved\n" for log in logs)
