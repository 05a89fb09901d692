"""Figure 1: the way that training takes on the plane of quality and diversity, and the slider beside guidance.

python experiments/figure_1.py --config quick
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-1", __doc__, config="default"))
