"""The script of one figure or table in ``experiments/``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from qd.config.loading import load_config
from qd.report.figures import FIGURES
from qd.report.reproduction.plan import ReproductionConfig
from qd.report.reproduction.reproduce import reproduce


def show(name: str, about: str, config: str = "shipped") -> int:
    """Trains and measures what is missing for a figure or table, and draws it.

    Args:
        name: A key of :data:`~qd.report.figures.FIGURES` or :data:`~qd.report.tables.TABLES`.
        about: Help text: what it shows.
        config: Default plan in configs/reproduction/.

    Returns:
        Exit status: 0; 1 if a command failed, 2 for bad input, 130 after Ctrl-C or a signal.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", default=config, help="a file in configs/reproduction/, or a path (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="parallel processes (default: one per core)"
    )
    options = parser.parse_args()
    try:
        if options.jobs < 1:
            raise ValueError(f"jobs is {options.jobs}; expected 1 or more")
        plan = load_config(ReproductionConfig, "reproduction", options.config)
        trained = name in FIGURES and FIGURES[name].trained
        stages = [*(["runs"] if trained else []), "sweep", "report"]
        if not (code := reproduce(plan, stages, [], options.jobs, name)):
            print(Path(plan.folder) / name / "report.html")
        return code
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped; run the same command again to resume", file=sys.stderr)
        return 130
