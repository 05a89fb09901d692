"""All of the paper's experiments on the built-in model: `make reproduce`, `make reproduce-quick`.

    python experiments/reproduce.py --dry-run
    python experiments/reproduce.py --only runs --runs beta0 beta15
    python experiments/reproduce.py --config quick
    python experiments/reproduce.py --only document --out page.md --compare configs/reproduction/other.yaml

Stages: `runs` trains the runs in configs/reproduction/<config>.yaml, `sweep` measures, `report` draws, `document`
writes the page with the verdicts on the paper's claims. After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from qd.config.loading import load_config
from qd.report.reproduction.document import write_document
from qd.report.reproduction.estimate import estimate
from qd.report.reproduction.plan import ReproductionConfig
from qd.report.reproduction.reproduce import STAGES, reproduce
from qd.runs.disk import disk_problem, try_writing
from qd.runs.process_rank import other_process
from qd.runs.signals import stop_cause, stop_signals, stop_status
from qd.runs.streams import keep_streams
from qd.schema.paths import expand_home, home_path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=expand_home, default="default", help="a file in configs/reproduction/, or the path of one"
    )
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument(
        "--runs", nargs="+", default=[], metavar="RUN", help="names of the runs to train (default: all)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="parallel processes (default: one per core)"
    )
    parser.add_argument("--out", type=home_path, help="path of the document (default: in the folder of the runs)")
    parser.add_argument(
        "--compare",
        type=expand_home,
        nargs="+",
        default=[],
        metavar="CONFIG",
        help="other plans to add to the document",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the remaining work, its time and disk space, and exit"
    )
    return parser.parse_args()


def main() -> int:
    options = _options()
    keep_streams()
    with stop_signals():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    """Runs the stages; returns the exit status."""
    try:
        if problem := other_process():
            raise ValueError(problem)
        if options.jobs < 1:
            raise ValueError(f"jobs is {options.jobs}; expected 1 or more")
        plan = load_config(ReproductionConfig, "reproduction", options.config)
        if options.dry_run:
            print(estimate(plan, options.only, options.runs, options.jobs).text)
            return 0
        out = options.out or Path(plan.folder) / "reproduction.md"
        for folder in (Path(plan.folder), out.parent):
            try_writing(folder)
        stages = [stage for stage in options.only if stage != "document"]
        code = reproduce(plan, stages, options.runs, options.jobs)
        if code or "document" not in options.only:
            return code
        others = {Path(name).stem: load_config(ReproductionConfig, "reproduction", name) for name in options.compare}
        name = Path(options.config).stem
        print(write_document(plan, out, name, others))
    except ValueError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"reproduce: {disk_problem(error, 'run the same command again to resume')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"reproduce: stopped by {stop_cause()}; progress is saved, run the same command again to resume",
            file=sys.stderr,
        )
        return stop_status()
    return 0


if __name__ == "__main__":
    sys.exit(main())
