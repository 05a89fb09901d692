"""Figure 10: quality and diversity by number of samples N per prompt, at constant batch size, for both estimators.

python experiments/figure_10.py --config quick
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-10", __doc__, config="default"))
