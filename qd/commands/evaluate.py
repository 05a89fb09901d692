"""``make evaluate``: the full protocol on any models, into a results file."""

from __future__ import annotations

from contextlib import nullcontext

from qd.config.measuring import EvaluateConfig
from qd.evaluation.run_tasks import run_tasks
from qd.evaluation.tasks import Task
from qd.models.merging.model_spec import ModelSpec
from qd.runs.devices import resolve_device
from qd.runs.lock import exclusive_lock
from qd.runs.ranks import process_group


def evaluate(config: EvaluateConfig, dry_run: bool = False) -> None:
    """Measures each model with each seed; see :func:`qd.evaluation.run_tasks.run_tasks`, also for what it raises,
    beside the ``ValueError`` where another process is writing the results file.

    Args:
        config: as :func:`qd.config.loading.load_config` gives it, without problems.
        dry_run: only list the points, and what they need.
    """
    specs = [ModelSpec.parse(text) for text in config.models]
    asked = (config.temperature, config.guidance_scale, config.negative_prompt)
    tasks = [Task(spec, seed, *asked, fad=config.asks_fad) for spec in specs for seed in config.seeds]
    alone = nullcontext() if dry_run else exclusive_lock(config.out)
    with alone, process_group(resolve_device(config.device)) as device:
        run_tasks(config, tasks, device, dry_run)
