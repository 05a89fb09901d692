"""What the paper claims, held against results: the table of `docs/reproduction.md`.

python experiments/claims.py runs/reproduction/results/points.jsonl --runs runs/reproduction
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qd.reproduction.claims import claims_table, judge
from qd.reproduction.measured import Measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="points.jsonl, the first configuration's first")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the training runs (default: runs)")
    options = parser.parse_args()
    try:
        attempts = {str(file): judge(Measured(file, options.runs)) for file in options.results}
    except ValueError as error:
        print(f"claims: {error}", file=sys.stderr)
        return 2
    print(claims_table(attempts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
