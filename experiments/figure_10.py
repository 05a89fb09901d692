"""Figure 10: what N samples a prompt, at constant batch and by both estimators, do to quality and diversity.

python experiments/figure_10.py --config quick
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-10", __doc__, config="default"))
