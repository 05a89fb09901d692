"""``make evaluate``: measures models by the full protocol, into a results file."""

from __future__ import annotations

from qd.config.measuring import EvaluateConfig
from qd.evaluation.run_tasks import run_tasks
from qd.evaluation.tasks import evaluate_tasks


def evaluate(config: EvaluateConfig, dry_run: bool = False) -> None:
    """Measures each model with each seed; raises the errors of :func:`~qd.evaluation.run_tasks.run_tasks`.

    Args:
        config: Valid settings, from :func:`qd.config.loading.load_config`.
        dry_run: Whether to only list the points, and the time and disk space that they need.
    """
    run_tasks(config, evaluate_tasks(config), dry_run)
