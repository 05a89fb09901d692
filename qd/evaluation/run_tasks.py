"""The common path of `qd evaluate` and `qd sweep`: plan, check, measure, and add points to the results file.

Existing measurements are reused, even after a rename. A stop at any time loses one point at most.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from qd.config.loading import ConfigError
from qd.config.measuring import MeasuringConfig
from qd.data.prompt_lengths import named_list, prompt_report
from qd.evaluation.points import Point
from qd.evaluation.task_runner import TaskRunner
from qd.evaluation.tasks import Plan, Planned, State, Task
from qd.metrics.formatting import format_duration
from qd.runs.collective import rank
from qd.runs.devices import resolve_device
from qd.runs.disk import require_space
from qd.runs.lock import exclusive_lock
from qd.runs.ranks import process_group

METRICS_IN_LINE = ("quality", "adherence", "preference", "diversity", "diversity_heldout", "vendi")


def run_tasks(config: MeasuringConfig, tasks: Sequence[Task], dry_run: bool = False) -> None:
    """Adds the missing points of all tasks to the results file.

    Args:
        config: Valid settings of the command.
        tasks: Measurements to make.
        dry_run: Whether to only list the points, and the time and disk space for the missing ones.

    Raises:
        ConfigError: There are too few clips for a Fréchet audio distance, or prompts are too long.
        ValueError: The results file is damaged or another process writes it, memory or disk space is too small, or a
            merged weight is not finite.
        KeyboardInterrupt: Ctrl-C; the message says what was saved and how to continue.
    """
    lock = nullcontext() if dry_run else exclusive_lock(config.out)
    with lock, process_group(resolve_device(config.device)) as device:
        _run(config, tasks, device, dry_run)


def _run(config: MeasuringConfig, tasks: Sequence[Task], device: torch.device, dry_run: bool) -> None:
    runner = TaskRunner(config, tasks, device)
    evaluator = runner.evaluator(tasks[0].model, fad=runner.reference is not None)
    negatives = dict.fromkeys(task.negative for task in tasks if task.guided and task.negative)
    if problems := evaluator.problems(negatives):
        raise ConfigError(problems)
    plan = runner.plan()
    disk = len(plan.new) * evaluator.point_bytes
    if dry_run:
        seconds = runner.seconds(plan)
        if rank() == 0:
            print("\n".join(f"{one.state.value:>10}  {one.task}" for one in plan))
            print(f"{_summary(plan, config)}\ntime: {format_duration(seconds)}\ndisk: {disk / 2**20:.0f} MiB")
        return
    require_space(config.out, disk, "the points need", "choose another OUT, or save less audio (audio_prompts)")
    if rank() == 0:
        print(_summary(plan, config), flush=True)
    _measure(runner, plan.missing)


def _measure(runner: TaskRunner, missing: Sequence[Planned]) -> None:
    """Measures the points one by one, and prints a line for each."""
    start, passes = time.perf_counter(), 0
    for number, one in enumerate(missing, start=1):
        began = time.perf_counter()
        try:
            point = runner.measure(one)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{number - 1} of {len(missing)} points were added to {runner.config.out}; run the same command again "
                "to measure the others"
            ) from None
        now = time.perf_counter()
        passes += one.task.passes if one.state is State.NEW else 0
        ahead = sum(other.task.passes for other in missing[number:] if other.state is State.NEW)
        remaining = (now - start) / passes * ahead if passes else 0.0
        if point:
            print(_line(point, one, f"{number}/{len(missing)}", now - began, remaining), flush=True)


def _line(point: Point, one: Planned, count: str, seconds: float, remaining: float) -> str:
    values = [f"{name} {point.metrics[name].mean:.3f}" for name in METRICS_IN_LINE]
    values += [f"FAD {point.fad:.3f}, FAD∞ {point.fad_infinite:.3f}"] if point.fad is not None else []
    values += [f"KAD {point.kad:.3f}"] if point.kad is not None else []
    return f"{count} · {one.task} · {', '.join(values)} · {seconds:.0f} s · {format_duration(remaining)} left"


def _summary(plan: Plan, config: MeasuringConfig) -> str:
    prompts = prompt_report(named_list(config.prompts, config.n_prompts))
    return f"{prompts}{config.out}: {plan.summary()}"
