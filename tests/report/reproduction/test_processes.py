"""Parallel commands: failures are reported, and a stop ends all children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qd.report.reproduction.processes import Job, run_jobs, total_duration

ROOT = Path(__file__).resolve().parents[3]


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name, lambda: [sys.executable, "-c", textwrap.dedent(code)], folder / "logs" / f"{name}.log")


def test_a_failure_is_reported_and_the_other_jobs_run(tmp_path, capsys):
    wrong = job(tmp_path, "wrong", "print('about to'); raise SystemExit('no such thing')")
    right = [job(tmp_path, f"right{i}", "import os; print(os.environ['OMP_NUM_THREADS'])") for i in range(2)]
    assert run_jobs([wrong, *right], 1, lambda *_: "") == [wrong]
    output = capsys.readouterr().out
    assert "wrong: FAILED with status 1" in output and "no such thing" in output and "right1: done" in output
    assert (tmp_path / "logs" / "right0.log").read_text() == "1\n"


def test_the_number_of_parallel_jobs_is_limited(tmp_path):
    code = """
        import pathlib, time
        here = pathlib.Path(r"{}")
        mine = here / "{}"
        mine.touch(); time.sleep(0.6); print(len(list(here.glob("run-*")))); mine.unlink()
    """
    jobs = [job(tmp_path, f"j{i}", code.format(tmp_path, f"run-{i}")) for i in range(4)]
    assert run_jobs(jobs, 2, lambda *_: "") == []
    assert max(int(each.log.read_text()) for each in jobs) <= 2


@pytest.mark.parametrize(
    ("durations", "parallel", "expected"),
    [([], 2, 0), ([3, 3, 3], 1, 9), ([3, 3, 3], 2, 6), ([3, 3, 3], 8, 3), ([5, 1, 1, 4], 2, 6), ([1, 1, 5], 2, 6)],
)
def test_total_duration(durations, parallel, expected):
    assert total_duration(durations, parallel) == expected


def test_progress_is_read_from_the_log(tmp_path):
    one = job(tmp_path, "a", "")
    assert one.progress() is None
    one.log.parent.mkdir()
    one.log.write_text("step 10/200 · 1.50 s/step · KL\nstep 20/200 · 1.25 s/step · KL\n")
    assert one.progress() == (20, 1.25)


CHILD = """
    import os, signal, sys, time
    def stop(*_):
        time.sleep(0.3); print("saved", flush=True); sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def runner(tmp_path):
    """Starts a process that runs two children; returns it and the children's logs once both children run."""
    script = tmp_path / "runner.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom qd.report.reproduction.processes import Job, run_jobs\n"
        f"command = [sys.executable, '-c', {textwrap.dedent(CHILD)!r}]\n"
        "jobs = [Job(n, lambda: command, Path(sys.argv[1]) / n) for n in 'ab']\n"
        "try:\n    run_jobs(jobs, 2, lambda *_: '')\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    )

    def start(hangup: signal.Handlers = signal.SIG_DFL) -> tuple[subprocess.Popen, list[Path]]:
        def reset_signals() -> None:  # a shell's background process, as these tests may be, ignores Ctrl-C
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, hangup)

        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)], env=environment, preexec_fn=reset_signals
        )
        logs = [tmp_path / name for name in "ab"]
        wait_until(lambda: all(log.is_file() and "here" in log.read_text() for log in logs))
        return process, logs

    return start


def wait_until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_reaches_the_children_and_waits_for_them(runner, number):
    process, logs = runner()
    process.send_signal(number)
    assert process.wait(timeout=30) == 130
    assert all(log.read_text() == "here\nsaved\n" for log in logs)


def test_a_second_hangup_has_no_effect(runner):
    process, logs = runner()
    process.send_signal(signal.SIGHUP)
    time.sleep(0.1)  # the children are saving
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 130
    assert all(log.read_text() == "here\nsaved\n" for log in logs)


def test_a_signal_ignored_by_nohup_stays_ignored(runner):
    process, logs = runner(signal.SIG_IGN)
    process.send_signal(signal.SIGHUP)
    time.sleep(1.0)
    assert process.poll() is None and all(log.read_text() == "here\n" for log in logs)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_children_stop_when_the_parent_is_killed(runner):
    process, logs = runner()
    process.kill()
    process.wait(timeout=30)
    wait_until(lambda: all(log.read_text() == "here\nsaved\n" for log in logs))


def test_children_of_a_script_that_ignores_sigint_can_be_stopped(tmp_path):
    child = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    one, former = job(tmp_path, "a", child), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_jobs([one], 1, lambda *_: "") == []
    finally:
        signal.signal(signal.SIGINT, former)
    assert one.log.read_text() == "True\n"


def test_the_former_handlers_are_restored(tmp_path):
    former = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    run_jobs([job(tmp_path, "a", "")], 1, lambda *_: "")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == former


def test_jobs_run_in_another_thread(tmp_path):
    with ThreadPoolExecutor() as pool:
        assert pool.submit(run_jobs, [job(tmp_path, "a", "")], 1, lambda *_: "").result() == []
