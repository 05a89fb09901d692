"""Figure 8: adherence and preference, the two parts of quality, of each model.

python experiments/figure_8.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-8", __doc__))
