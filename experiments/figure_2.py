"""Figure 2: KL to the guided teacher, quality and diversity during training.

python experiments/figure_2.py --config quick
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-2", __doc__, config="default"))
