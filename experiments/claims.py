"""Prints the verdicts on the paper's claims for one or more plans, and the numbers behind them.

python experiments/claims.py gpu shipped --csv docs/reproduction-gpu/claims.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from qd.config.loading import ConfigError, load_config
from qd.report.reproduction.claims import Row, claims_table, judge
from qd.report.reproduction.measured import Measured
from qd.report.reproduction.plan import ReproductionConfig

COLUMNS = ("plan", "claim", "statement", "mean", "lo", "hi", "note", "rule", "verdict")


def write_csv(path: Path, attempts: Mapping[str, Sequence[Row]]) -> None:
    """Writes one line for each statement of each claim; a number is a mean with its 95 % interval."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, rows in attempts.items():
            for row in rows:
                for part in row.parts:
                    interval = (part.interval.mean, part.interval.lo, part.interval.hi) if part.interval else ()
                    numbers = [f"{number:.3f}" for number in interval] or ["", "", ""]
                    verdict = part.verdict.value if part.verdict else ""
                    writer.writerow([name, row.claim.split(".")[0], part.text, *numbers, part.note, part.rule, verdict])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", help="plans in configs/reproduction/, or paths")
    parser.add_argument("--csv", type=Path, help="also write the numbers behind the verdicts into this file")
    options = parser.parse_args()
    try:
        plans = {name: load_config(ReproductionConfig, "reproduction", name) for name in options.plans}
        attempts = {name: judge(Measured(plan.results, plan.folder, plan.betas)) for name, plan in plans.items()}
    except (ConfigError, ValueError) as error:
        print(f"claims: {error}", file=sys.stderr)
        return 2
    if options.csv:
        write_csv(options.csv, attempts)
    print(claims_table(attempts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
