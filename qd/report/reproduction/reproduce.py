"""``make reproduce``: the runs, the sweep and the report. Each stage resumes after an interruption."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from qd.config.loading import ConfigError
from qd.metrics.formatting import format_duration
from qd.report.figures import FIGURES
from qd.report.reproduction.estimate import estimate
from qd.report.reproduction.plan import QD, PlannedRun, ReproductionConfig, State, planned_runs, trained
from qd.report.reproduction.processes import Job, run_jobs, total_duration
from qd.report.reproduction.sweep_plan import load_sweep, sweep_arguments
from qd.report.tables import TABLES
from qd.runs.lock import exclusive_lock

STAGES = ("runs", "sweep", "report", "document")
"""Stages in order; the last one, the document, is written by :func:`qd.report.reproduction.document.write_document`."""


def reproduce(
    plan: ReproductionConfig, stages: Sequence[str], names: Sequence[str], jobs: int, figure: str | None = None
) -> int:
    """Runs the remaining work of the stages, after printing the time and disk space that it needs.

    Args:
        plan: The reproduction.
        stages: Some of :data:`STAGES`, without the document.
        names: Names of the runs to train; all if empty.
        jobs: Number of parallel processes.
        figure: Name of a figure or table; only its series are measured, and only it is drawn. None = all.

    Returns:
        1 if a command failed, else 0.

    Raises:
        ConfigError: A folder has a run with other settings, or the sweep has no series for the figure.
        ValueError: A dry run failed, or another process works in the plan's folder.
        KeyboardInterrupt: Ctrl-C; the same command resumes.
    """
    with exclusive_lock(plan.folder):
        return _reproduce(plan, stages, names, jobs, figure)


def _reproduce(
    plan: ReproductionConfig, stages: Sequence[str], names: Sequence[str], jobs: int, figure: str | None
) -> int:
    series = figure and figure_series(plan, figure)
    needs = estimate(plan, stages, names, jobs, series)
    if needs.left:
        print(needs.text, flush=True)
    steps = {
        "runs": lambda: _train(plan, names, jobs),
        "sweep": lambda: _sweep(plan, jobs, series),
        "report": lambda: _report(plan, figure),
    }
    for stage, run in steps.items():
        if stage not in stages:
            continue
        print(f"== {stage}", flush=True)
        if failed := run():
            print(f"failed: {', '.join(failed)}; run the same command again to retry", file=sys.stderr)
            return 1
    return 0


def _train(plan: ReproductionConfig, names: Sequence[str], jobs: int) -> list[str]:
    runs = planned_runs(plan, list(names))
    left = [run for run in runs if run.state is not State.DONE]
    print(f"{len(runs) - len(left)} of {len(runs)} runs are done", flush=True)
    by_name = {run.run.name: run for run in left}
    logs = Path(plan.folder) / "logs"
    todo = [Job(name, run.command, logs / f"{name}.log", run.clear) for name, run in by_name.items()]
    failed = run_jobs(todo, jobs, lambda done, running, lost: _progress(by_name, done, running, lost, jobs))
    return [job.name for job in failed]


def _progress(
    runs: dict[str, PlannedRun], done: Sequence[Job], running: Sequence[Job], failed: Sequence[Job], jobs: int
) -> str:
    """``runs: 2 of 10 done · beta5 640/2000, beta10 630/2000 · 3 h 05 min left``."""
    progress = {job.name: job.progress() for job in running}
    finished = {job.name for job in (*done, *failed)}
    steps = [runs[name].steps - last[0] if last else runs[name].left for name, last in progress.items()]
    steps += [run.left for name, run in runs.items() if name not in (*finished, *progress)]
    rates = [last[1] for last in progress.values() if last]
    eta = (
        f"{format_duration(total_duration(steps, jobs) * sum(rates) / len(rates))} left"
        if rates
        else "remaining time unknown"
    )
    now = ", ".join(f"{name} {(last or (0,))[0]}/{runs[name].steps}" for name, last in progress.items())
    lost = f", {len(failed)} failed" if failed else ""
    return f"runs: {len(done)} of {len(runs)} done{lost} · {now} · {eta}"


def figure_series(plan: ReproductionConfig, figure: str) -> list[str]:
    """The series of the plan's sweep that a figure or table shows.

    Raises:
        ConfigError: The sweep has none of them.
    """
    starts = {**FIGURES, **TABLES}[figure].series
    names = [name for name in load_sweep(plan).series if name.startswith(starts)]
    if not names:
        wanted = " or ".join(f"{start}…" for start in starts)
        raise ConfigError(
            [f"sweep {plan.sweep} has no series for {figure}; expected {wanted}; choose another --config"]
        )
    return names


def _sweep(plan: ReproductionConfig, jobs: int, series: Sequence[str] | None) -> list[str]:
    """Runs the sweep in one process, or in several that share the prompts of each point."""
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(jobs), "-m", "qd"]
    return _one("sweep", [*(QD if jobs == 1 else ranks), *sweep_arguments(plan, series)], plan)


def _report(plan: ReproductionConfig, figure: str | None) -> list[str]:
    out = str(Path(plan.folder) / (figure or "report"))
    runs = [str(folder) for folder in trained(plan)]
    command = [*QD, "report", "--points", str(plan.results), "--out", out, *(["--runs", *runs] if runs else [])]
    return _one("report", [*command, *(["--only", figure] if figure else [])], plan)


def _one(name: str, command: list[str], plan: ReproductionConfig) -> list[str]:
    job = Job(name, lambda: command, Path(plan.folder) / "logs" / f"{name}.log")
    failed = run_jobs([job], 1, lambda *_: f"{name}: {_last_line(job.log)}")
    return [job.name for job in failed]


def _last_line(log: Path) -> str:
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["…"])[-1]
