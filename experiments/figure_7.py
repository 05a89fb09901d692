"""Figure 7: preference and adherence, the two parts of quality, by guidance scale γ.

python experiments/figure_7.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-7", __doc__))
