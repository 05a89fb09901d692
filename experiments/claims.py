"""Prints the verdicts on the paper's claims for one or more plans: the table of `docs/reproduction.md`.

python experiments/claims.py default shipped
"""

from __future__ import annotations

import argparse
import sys

from qd.config.loading import ConfigError, load_config
from qd.report.reproduction.claims import claims_table, judge
from qd.report.reproduction.measured import Measured
from qd.report.reproduction.plan import ReproductionConfig


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", help="plans in configs/reproduction/, or paths")
    options = parser.parse_args()
    try:
        plans = {name: load_config(ReproductionConfig, "reproduction", name) for name in options.plans}
        attempts = {name: judge(Measured(plan.results, plan.folder, plan.betas)) for name, plan in plans.items()}
    except (ConfigError, ValueError) as error:
        print(f"claims: {error}", file=sys.stderr)
        return 2
    print(claims_table(attempts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
