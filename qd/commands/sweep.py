"""``make sweep``: all points that a YAML file names, into a results file."""

from __future__ import annotations

from contextlib import nullcontext

from qd.config.sweep import SweepConfig
from qd.evaluation.run_tasks import run_tasks
from qd.evaluation.tasks import sweep_tasks
from qd.runs.devices import resolve_device
from qd.runs.lock import exclusive_lock
from qd.runs.ranks import process_group


def sweep(config: SweepConfig, dry_run: bool = False) -> None:
    """Measures every point of every series; see :func:`qd.evaluation.run_tasks.run_tasks`, also for what it raises,
    beside the ``ValueError`` where another process is writing the results file.

    Args:
        config: as :func:`qd.config.loading.load_config` gives it, without problems.
        dry_run: only list the points, and what they need.
    """
    alone = nullcontext() if dry_run else exclusive_lock(config.out)
    with alone, process_group(resolve_device(config.device)) as device:
        run_tasks(config, sweep_tasks(config), device, dry_run)
