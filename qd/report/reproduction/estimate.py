"""What is left of a reproduction, and the time and disk that it needs, before it starts."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from qd.metrics.formatting import format_duration
from qd.report.reproduction.plan import QD, PlannedRun, ReproductionConfig, State, planned_runs
from qd.report.reproduction.processes import lasting
from qd.report.reproduction.sweep_plan import load_sweep, sweep_arguments
from qd.runs.disk import free_space, held_bytes

_TIME = re.compile(r"^time: (.*?)(?: \(([\d.]+) s a step\))?$", re.MULTILINE)
_POINTS = re.compile(r": of (\d+) points .*?(\d+) to measure$", re.MULTILINE)
_DISK = re.compile(r"^disk: ([\d.]+) (GiB|MiB)$", re.MULTILINE)


class Estimate(NamedTuple):
    """What is to be told before a reproduction starts.

    Attributes:
        text: what is left, and the time and disk that it needs.
        left: whether anything is left to train or to measure.
    """

    text: str
    left: bool


class _Stage(NamedTuple):
    """Of a stage: what is told of it, how many runs or points are left, seconds, and GiB."""

    lines: list[str]
    left: int
    seconds: float
    disk: float


def estimate(
    plan: ReproductionConfig,
    stages: Sequence[str],
    names: Sequence[str],
    jobs: int,
    series: Sequence[str] | None = None,
) -> Estimate:
    """What is left of the stages to train and to measure: one micro-batch and one batch of a point are really made.

    Args:
        plan: what to do.
        stages: of :data:`~qd.report.reproduction.reproduce.STAGES`; those that draw and write need little.
        names: of runs; all if empty. jobs: processes at once. series: of the sweep; None = all.

    Raises:
        ValueError: the plan does not fit what is there, or a command does not tell what it needs.
    """
    found = [_runs(plan, names, jobs)] if "runs" in stages else []
    found += [_sweep(plan, jobs, series)] if "sweep" in stages else []
    lines = [line for stage in found for line in stage.lines]
    seconds = sum(stage.seconds for stage in found)
    disk = sum(stage.disk for stage in found)
    place, free = free_space(plan.folder)
    lines += [f"time: {format_duration(seconds)}", f"disk: {disk:.1f} GiB of {free / 2**30:.1f} in {place}"]
    return Estimate("\n".join(lines), any(stage.left for stage in found))


def _runs(plan: ReproductionConfig, names: Sequence[str], jobs: int) -> _Stage:
    runs = planned_runs(plan, list(names))
    lines = [f"{run.state.value:>10}  {run.run.name}, {_steps(run)}" for run in runs]
    left = [run for run in runs if run.state is not State.DONE]
    if not left:
        return _Stage(lines, 0, 0.0, 0.0)
    told = _told(left[0].settings())
    step = float(_TIME.search(told)[2])
    lines.append(f"runs: {len(left)} left, {step:.2f} s a step by itself, {jobs} at once")
    disk = sum(max(0.0, gibibytes(told) - held_bytes(run.folder) / 2**30) for run in left)
    return _Stage(lines, len(left), lasting([run.left * step for run in left], jobs), disk)


def _steps(run: PlannedRun) -> str:
    return f"{run.left} of {run.steps} steps" if run.state is State.BEGUN else f"{run.steps} steps"


def _sweep(plan: ReproductionConfig, jobs: int, series: Sequence[str] | None) -> _Stage:
    """Of the points that are not there yet; of all points where models are still to be trained. The processes share
    each point."""
    if all(run.state is State.DONE for run in planned_runs(plan)):
        told = _told(sweep_arguments(plan, series))
        points, left = map(int, _POINTS.search(told).groups())
        lines = [f"sweep: {left} of {points} points left"]
        return _Stage(lines, left, read_clock(_TIME.search(told)[1]) / jobs, gibibytes(told))
    sweep = load_sweep(plan, series)
    passes = sum(2 if guided else 1 for guided in sweep.guided)
    with tempfile.TemporaryDirectory() as empty:
        out = ["--out", str(Path(empty) / "points.jsonl"), "--protocol", sweep.protocol]
        told = _told(["evaluate", "--model", "base", *out, *sweep.overrides])
    point, count = read_clock(_TIME.search(told)[1]), len(sweep.guided)
    lines = [f"sweep: {count} points, {point:.0f} s each, guided ones twice as long"]
    return _Stage(lines, count, passes * point / jobs, count * gibibytes(told))


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
