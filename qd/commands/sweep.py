"""``make sweep``: measures all points of a sweep config, into a results file."""

from __future__ import annotations

from qd.config.sweep import SweepConfig
from qd.evaluation.run_tasks import run_tasks
from qd.evaluation.tasks import sweep_tasks


def sweep(config: SweepConfig, dry_run: bool = False) -> None:
    """Measures every point of every series; raises the errors of :func:`~qd.evaluation.run_tasks.run_tasks`.

    Args:
        config: Valid settings, from :func:`qd.config.loading.load_config`.
        dry_run: Whether to only list the points, and the time and disk space that they need.
    """
    run_tasks(config, sweep_tasks(config), dry_run)
