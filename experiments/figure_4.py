"""Figure 4: quality and diversity along λ, compared with a linear trade-off.

python experiments/figure_4.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-4", __doc__))
