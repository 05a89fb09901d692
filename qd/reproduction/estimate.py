"""What is left of a reproduction, and the time and disk that it needs, before it starts."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qd.callbacks.progress import clock
from qd.disk import free_space
from qd.reproduction.plan import QD, ReproductionConfig, State, planned_runs
from qd.reproduction.sweep_plan import load_sweep

_TIME = re.compile(r"^time: (.*?)(?: \(([\d.]+) s a step\))?$", re.MULTILINE)
_DISK = re.compile(r"^disk: ([\d.]+) (GiB|MiB)$", re.MULTILINE)


def estimate(plan: ReproductionConfig, stages: Sequence[str], names: Sequence[str], jobs: int) -> str:
    """What is left, and the time and disk that it needs: one micro-batch and one batch of a point are really made."""
    lines, seconds, disk = [], 0.0, 0.0
    if "runs" in stages:
        runs = planned_runs(plan, list(names))
        lines += [f"{run.state.value:>10}  {run.run.name}, {run.steps} steps" for run in runs]
        left = [run for run in runs if run.state is not State.DONE]
        if left:
            told = _told(left[0].settings())
            step = float(_TIME.search(told)[2])
            disk += len(left) * gibibytes(told)
            seconds += sum(run.steps for run in left) * step / jobs
            lines.append(f"runs: {len(left)} left, {step:.2f} s a step by itself, {jobs} at once")
    if "sweep" in stages:
        with tempfile.TemporaryDirectory() as empty:
            sweep = load_sweep(plan)
            passes = sum(2 if guided else 1 for guided in sweep.guided)
            out = ["--out", str(Path(empty) / "points.jsonl"), "--protocol", sweep.protocol]
            told = _told(["evaluate", "--model", "base", *out, *sweep.overrides])
        point = read_clock(_TIME.search(told)[1])
        seconds += passes * point / jobs
        disk += len(sweep.guided) * gibibytes(told)
        lines.append(f"sweep: {len(sweep.guided)} points, {point:.0f} s each, guided ones twice as long")
    place, free = free_space(plan.folder)
    return "\n".join([*lines, f"time: {clock(seconds)}", f"disk: {disk:.1f} GiB of {free / 2**30:.1f} in {place}"])


def _told(arguments: Sequence[str]) -> str:
    """What a command prints of its needs."""
    command = [*QD, *arguments, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, env=_single_threaded(), check=False)
    if done.returncode:
        raise ValueError(f"`qd {' '.join(arguments)} --dry-run` failed: {done.stderr.strip()}")
    return done.stdout


def _single_threaded() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def gibibytes(told: str) -> float:
    """Of the line ``disk: …``."""
    number, unit = _DISK.search(told).groups()
    return float(number) / (1 if unit == "GiB" else 1024)


def read_clock(text: str) -> float:
    """Seconds of ``45 s``, ``12 min`` or ``3 h 05 min``.

    Example:
        >>> read_clock("3 h 05 min"), read_clock("45 s")
        (11100.0, 45.0)
    """
    units = {"s": 1, "min": 60, "h": 3600}
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", text)))
