"""Figure 7: what the guidance scale γ does to preference and adherence, the two parts of quality.

python experiments/figure_7.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-7", __doc__))
