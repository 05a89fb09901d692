"""``make reproduce``: the runs, the sweeps, the report and the table of claims, each of which goes on after a stop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from qd.config.loading import ConfigError
from qd.metrics.formatting import format_duration
from qd.report.figures import FIGURES
from qd.report.reproduction.estimate import estimate
from qd.report.reproduction.plan import QD, PlannedRun, ReproductionConfig, State, planned_runs, trained
from qd.report.reproduction.processes import Job, lasting, run_jobs
from qd.report.reproduction.sweep_plan import load_sweep, sweep_arguments
from qd.report.tables import TABLES
from qd.runs.lock import exclusive_lock

STAGES = ("runs", "sweep", "report", "document")
"""In their order; the document is written by :func:`qd.report.reproduction.document.write_document`."""


def reproduce(
    plan: ReproductionConfig, stages: Sequence[str], names: Sequence[str], jobs: int, shown: str | None = None
) -> int:
    """Does what is left of the stages, and tells first what time and disk that needs.

    Args:
        plan: what to do.
        stages: of :data:`STAGES`, but the document. names: of runs to make; all if empty. jobs: processes at once.
        shown: the name of a figure or table, to measure no more than it shows, and to draw it alone; None = all.

    Returns:
        1 if something failed, else 0.

    Raises:
        ConfigError: the plan does not fit what is there.
        ValueError: what is left does not tell what it needs, or another process is at work in the plan's folder.
        KeyboardInterrupt: Ctrl-C; the message says how to go on.
    """
    with exclusive_lock(plan.folder):
        return _reproduce(plan, stages, names, jobs, shown)


def _reproduce(
    plan: ReproductionConfig, stages: Sequence[str], names: Sequence[str], jobs: int, shown: str | None
) -> int:
    series = shown and shown_series(plan, shown)
    needs = estimate(plan, stages, names, jobs, series)
    if needs.left:
        print(needs.text, flush=True)
    steps = {
        "runs": lambda: _train(plan, names, jobs),
        "sweep": lambda: _sweep(plan, jobs, series),
        "report": lambda: _report(plan, shown),
    }
    for stage, do in steps.items():
        if stage not in stages:
            continue
        print(f"== {stage}", flush=True)
        if failed := do():
            print(f"failed: {', '.join(failed)}; the same command tries again what is missing", file=sys.stderr)
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
    seen = {job.name: job.progress() for job in running}
    over = {job.name for job in (*done, *failed)}
    steps = [runs[name].steps - progress[0] if progress else runs[name].left for name, progress in seen.items()]
    steps += [run.left for name, run in runs.items() if name not in (*over, *seen)]
    rates = [progress[1] for progress in seen.values() if progress]
    eta = (
        f"{format_duration(lasting(steps, jobs) * sum(rates) / len(rates))} left"
        if rates
        else "time left not known yet"
    )
    now = ", ".join(f"{name} {(progress or (0,))[0]}/{runs[name].steps}" for name, progress in seen.items())
    lost = f", {len(failed)} failed" if failed else ""
    return f"runs: {len(done)} of {len(runs)} done{lost} · {now} · {eta}"


def shown_series(plan: ReproductionConfig, shown: str) -> list[str]:
    """The series of the plan's sweep that a figure or table shows.

    Raises:
        ConfigError: the sweep has none of them.
    """
    starts = {**FIGURES, **TABLES}[shown].series
    names = [name for name in load_sweep(plan).series if name.startswith(starts)]
    if not names:
        wanted = " or ".join(f"{start}…" for start in starts)
        raise ConfigError([f"sweep {plan.sweep} has no series for {shown}; expected {wanted}: take another --config"])
    return names


def _sweep(plan: ReproductionConfig, jobs: int, series: Sequence[str] | None) -> list[str]:
    """As one process, or as several that share each point's prompts."""
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(jobs), "-m", "qd"]
    return _one("sweep", [*(QD if jobs == 1 else ranks), *sweep_arguments(plan, series)], plan)


def _report(plan: ReproductionConfig, shown: str | None) -> list[str]:
    out = str(Path(plan.folder) / (shown or "report"))
    runs = [str(folder) for folder in trained(plan)]
    command = [*QD, "report", "--points", str(plan.results), "--out", out, *(["--runs", *runs] if runs else [])]
    return _one("report", [*command, *(["--only", shown] if shown else [])], plan)


def _one(name: str, command: list[str], plan: ReproductionConfig) -> list[str]:
    job = Job(name, lambda: command, Path(plan.folder) / "logs" / f"{name}.log")
    failed = run_jobs([job], 1, lambda *_: f"{name}: {_last_line(job.log)}")
    return [job.name for job in failed]


def _last_line(log: Path) -> str:
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["…"])[-1]
