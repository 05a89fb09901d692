"""Estimates the remaining work of a reproduction, and the time and disk space that it needs."""

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
from qd.report.reproduction.processes import total_duration
from qd.report.reproduction.sweep_plan import load_sweep, sweep_arguments
from qd.runs.disk import free_space, held_bytes

_TIME = re.compile(r"^time: (.*?)(?: \(([\d.]+) s (?:a|per) step\))?$", re.MULTILINE)
_POINTS = re.compile(r"(\d+) points\b.*?(\d+) to measure$", re.MULTILINE)
_DISK = re.compile(r"^disk: ([\d.]+) (GiB|MiB)$", re.MULTILINE)


class Estimate(NamedTuple):
    """The needs of a reproduction.

    Attributes:
        text: The remaining work, and the time and disk space that it needs.
        left: Whether anything remains to train or to measure.
    """

    text: str
    left: bool


class _Stage(NamedTuple):
    """The needs of a stage.

    Attributes:
        lines: Description for the user.
        left: Number of remaining runs or points.
        seconds: Time.
        disk: Disk space in GiB.
    """

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
    """Estimates the remaining training and measuring; to time them, it runs one micro-batch and one batch of a point.

    Args:
        plan: The reproduction.
        stages: Some of :data:`~qd.report.reproduction.reproduce.STAGES`; drawing and writing are not estimated.
        names: Names of runs; all if empty.
        jobs: Number of parallel processes.
        series: Series of the sweep; None = all.

    Raises:
        ValueError: A folder has a run with other settings, or a dry run of a command failed.
    """
    needs = [_runs(plan, names, jobs)] if "runs" in stages else []
    needs += [_sweep(plan, jobs, series)] if "sweep" in stages else []
    lines = [line for stage in needs for line in stage.lines]
    seconds = sum(stage.seconds for stage in needs)
    disk = sum(stage.disk for stage in needs)
    folder, free = free_space(plan.folder)
    lines += [
        f"time: {format_duration(seconds)}",
        f"disk: {disk:.1f} GiB needed, {free / 2**30:.1f} GiB free in {folder}",
    ]
    return Estimate("\n".join(lines), any(stage.left for stage in needs))


def _runs(plan: ReproductionConfig, names: Sequence[str], jobs: int) -> _Stage:
    runs = planned_runs(plan, list(names))
    lines = [f"{run.state.value:>10}  {run.run.name}, {_steps(run)}" for run in runs]
    left = [run for run in runs if run.state is not State.DONE]
    if not left:
        return _Stage(lines, 0, 0.0, 0.0)
    report = _dry_run(left[0].settings())
    step = float(_TIME.search(report)[2])
    lines.append(f"runs: {len(left)} left, {step:.2f} s per step, {jobs} in parallel")
    disk = sum(max(0.0, gibibytes(report) - held_bytes(run.folder) / 2**30) for run in left)
    return _Stage(lines, len(left), total_duration([run.left * step for run in left], jobs), disk)


def _steps(run: PlannedRun) -> str:
    return f"{run.left} of {run.steps} steps" if run.state is State.BEGUN else f"{run.steps} steps"


def _sweep(plan: ReproductionConfig, jobs: int, series: Sequence[str] | None) -> _Stage:
    """The missing points, or all points if models are not trained yet. The processes share each point."""
    if all(run.state is State.DONE for run in planned_runs(plan)):
        report = _dry_run(sweep_arguments(plan, series))
        points, left = map(int, _POINTS.search(report).groups())
        lines = [f"sweep: {left} of {points} points left"]
        return _Stage(lines, left, read_clock(_TIME.search(report)[1]) / jobs, gibibytes(report))
    sweep = load_sweep(plan, series)
    passes = sum(2 if guided else 1 for guided in sweep.guided)
    with tempfile.TemporaryDirectory() as empty:
        out = ["--out", str(Path(empty) / "points.jsonl"), "--protocol", sweep.protocol]
        report = _dry_run(["evaluate", "--model", "base", *out, *sweep.overrides])
    point, count = read_clock(_TIME.search(report)[1]), len(sweep.guided)
    lines = [f"sweep: {count} points, {point:.0f} s each, twice as long with guidance"]
    return _Stage(lines, count, passes * point / jobs, count * gibibytes(report))


def _dry_run(arguments: Sequence[str]) -> str:
    """The needs that a command prints with ``--dry-run``."""
    command = [*QD, *arguments, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, env=_single_threaded(), check=False)
    if done.returncode:
        raise ValueError(f"`qd {' '.join(arguments)} --dry-run` failed: {done.stderr.strip()}")
    return done.stdout


def _single_threaded() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def gibibytes(report: str) -> float:
    """GiB of the line ``disk: …`` of a dry run."""
    number, unit = _DISK.search(report).groups()
    return float(number) / (1 if unit == "GiB" else 1024)


def read_clock(text: str) -> float:
    """Seconds from text such as ``45 s``, ``12 min`` or ``3 h 05 min``.

    Example:
        >>> read_clock("3 h 05 min"), read_clock("45 s")
        (11100.0, 45.0)
    """
    units = {"s": 1, "min": 60, "h": 3600}
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", text)))
