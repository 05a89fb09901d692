"""Measuring a list of tasks: what is there is skipped, what comes is told, and a stop at any time loses one point."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from qd.config.loading import ConfigError
from qd.config.measuring import MeasuringConfig
from qd.data.prompt_lengths import named_list, prompt_report, unreadable_lists
from qd.evaluation.measure import AUDIO_SAMPLES
from qd.evaluation.points import Point
from qd.evaluation.task_runner import TaskRunner
from qd.evaluation.tasks import Planned, State, Task
from qd.metrics.formatting import format_duration
from qd.metrics.frechet import LEAST
from qd.models.condition import text_too_long
from qd.runs.collective import rank
from qd.runs.disk import free_space

LINE_BYTES = 2_000
VALUE_BYTES = 8
PROMPT_BYTES = 400  # of a prompt in an array of texts, 4 bytes a character, padded to the longest
SHOWN = ("quality", "adherence", "preference", "diversity", "diversity_heldout", "vendi")


def run_tasks(config: MeasuringConfig, tasks: Sequence[Task], device: torch.device, dry_run: bool = False) -> None:
    """Adds a point for each task to the results file, where it is not there yet.

    Args:
        config: how to measure; without problems.
        tasks: the models of each are there, and siblings.
        device: of this process.
        dry_run: only list the points, and what time and disk the missing ones need.

    Raises:
        ConfigError: too few clips for a Fréchet audio distance, or a prompt that the text encoder cannot read.
        ValueError: the results file is damaged, memory or disk is too small, or a merged weight is not finite.
        KeyboardInterrupt: Ctrl-C; the message says what is there and how to go on.
    """
    runner = TaskRunner(config, device, any(task.fad for task in tasks), any(task.passes == 2 for task in tasks))
    planned = runner.plan(tasks)
    rows = _rows(runner, tasks)
    problems = _length_problems(runner, tasks)
    if runner.reference and rows < LEAST:
        problems.append(f"fad is asked for of {rows} clips; expected {LEAST} or more: use a larger protocol")
    if problems:
        raise ConfigError(problems)
    left = [one for one in planned if one.state is not State.THERE]
    new = [one for one in left if one.state is State.NEW]
    disk = len(new) * _bytes(runner, tasks)
    if dry_run:
        seconds = _estimate(runner, new, rows)
        if rank() == 0:
            print("\n".join(f"{one.state.value:>10}  {one.task}" for one in planned))
            print(_summary(planned, config))
            print(f"time: {format_duration(seconds)}\ndisk: {disk / 2**20:.0f} MiB")
        return
    _check_disk(config.out, disk)
    if rank() == 0:
        print(_summary(planned, config), flush=True)
    _measure(runner, left)


def _measure(runner: TaskRunner, left: Sequence[Planned]) -> None:
    start, passes = time.perf_counter(), 0
    for number, one in enumerate(left, start=1):
        began = time.perf_counter()
        try:
            point = runner.measure(one)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{number - 1} of {len(left)} points were added to {runner.config.out}; the same command measures the "
                "others"
            ) from None
        now = time.perf_counter()
        passes += one.task.passes if one.state is State.NEW else 0
        coming = sum(other.task.passes for other in left[number:] if other.state is State.NEW)
        remaining = (now - start) / passes * coming if passes else 0.0
        if point:
            print(_line(point, one, f"{number}/{len(left)}", now - began, remaining), flush=True)


def _line(point: Point, one: Planned, count: str, seconds: float, left: float) -> str:
    shown = [f"{name} {point.metrics[name].mean:.3f}" for name in SHOWN]
    shown += [f"FAD {point.fad:.3f}, FAD∞ {point.fad_infinite:.3f}"] if point.fad is not None else []
    return f"{count} · {one.task} · {', '.join(shown)} · {seconds:.0f} s · {format_duration(left)} left"


def _summary(planned: Sequence[Planned], config: MeasuringConfig) -> str:
    prompts = prompt_report(named_list(config.prompts, config.n_prompts))
    counts = {state: sum(one.state is state for one in planned) for state in State}
    known = f", {counts[State.KNOWN]} are the same as others and need only a line" if counts[State.KNOWN] else ""
    there = f"of {len(planned)} points {counts[State.THERE]} are there{known}, {counts[State.NEW]} to measure"
    return f"{prompts}{config.out}: {there}"


def _length_problems(runner: TaskRunner, tasks: Sequence[Task]) -> list[str]:
    """One sentence for the file of prompts, and for each negative prompt, that the text encoder cannot read."""
    config, tokenizer = runner.config, runner.weights.load(tasks[0].model, runner.device).tokenizer
    lists = named_list(config.prompts, config.n_prompts)
    negatives = dict.fromkeys(task.negative for task in tasks if task.passes == 2 and task.negative)
    told = [text_too_long(text, tokenizer) for text in negatives]
    return unreadable_lists(lists, tokenizer) + [f"negative_prompt has {problem}" for problem in told if problem]


def _rows(runner: TaskRunner, tasks: Sequence[Task]) -> int:
    """Clips of a point."""
    evaluator = runner.evaluator(runner.weights.load(tasks[0].model, runner.device))
    return len(evaluator.prompts) * evaluator.protocol.n_samples


def _bytes(runner: TaskRunner, tasks: Sequence[Task]) -> int:
    """Of a point on the disk, at most."""
    music = runner.weights.load(tasks[0].model, runner.device)
    prompts = len(runner.evaluator(music).prompts)
    clips = min(runner.config.audio_prompts, prompts) * AUDIO_SAMPLES
    audio = clips * round(runner.config.seconds * music.sample_rate) * 2
    return LINE_BYTES + audio + prompts * (7 * VALUE_BYTES + PROMPT_BYTES)


def _estimate(runner: TaskRunner, new: Sequence[Planned], rows: int) -> float:
    """Seconds of the points to measure: of one batch, really sampled and heard, the second time, times the batches."""
    if not new:
        return 0.0
    seconds = {}
    for passes in {one.task.passes for one in new}:
        one = next(one for one in new if one.task.passes == passes)
        evaluator = runner.evaluator(runner.weights.load(one.task.model, runner.device), one.fad)
        for _ in range(2):
            began = time.perf_counter()
            sampled = evaluator.measure_batch(evaluator.music.lm, one.task.sampling(runner.config.seconds))
            seconds[passes] = (time.perf_counter() - began) / sampled
    return sum(seconds[one.task.passes] for one in new) * rows


def _check_disk(out: str, needed: int) -> None:
    place, free = free_space(out)
    if free < needed:
        raise ValueError(
            f"the points need {needed / 2**20:.0f} MiB and '{place}' has {free / 2**20:.0f} MiB free; make room, name "
            "another OUT, or keep less audio (audio_prompts)"
        )
