"""Figure 4: quality and diversity along λ, and whether interpolation does better than a linear trade.

python experiments/figure_4.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-4", __doc__))
