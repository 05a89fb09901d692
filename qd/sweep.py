"""``make sweep``: all points that a YAML file names, into a results file."""

from __future__ import annotations

from contextlib import nullcontext

from qd.config_schema.sweep import SweepConfig
from qd.devices import resolve_device
from qd.evaluation.run_tasks import run_tasks
from qd.evaluation.task import Task
from qd.lock import sole_writer
from qd.quiet import quieten_libraries
from qd.ranks import process_group


def sweep(config: SweepConfig, dry_run: bool = False) -> None:
    """Measures every point of every series; see :func:`qd.evaluation.run_tasks.run_tasks`, also for what it raises,
    beside the ``ValueError`` where another process is writing the results file.

    Args:
        config: as :func:`qd.config.load_config` gives it, without problems.
        dry_run: only list the points, and what they need.
    """
    quieten_libraries()
    alone = nullcontext() if dry_run else sole_writer(config.out)
    with alone, process_group(resolve_device(config.device)) as device:
        run_tasks(config, sweep_tasks(config), device, dry_run)


def sweep_tasks(config: SweepConfig) -> list[Task]:
    """The points in the order of the series; a series with its first seed, then with the next."""
    tasks = []
    for series in config.chosen:
        common = {"temperature": config.temperature, "series": series.name, "fad": config.hears_fad(series)}
        for seed in config.seeds if series.seeds is None else series.seeds:
            for spec, own in series.points(config.models):
                tasks.append(Task(spec, seed, **common | own))
    return tasks
