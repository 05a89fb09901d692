"""Figure 8: which part of quality each model gains or loses, adherence or preference.

python experiments/figure_8.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-8", __doc__))
