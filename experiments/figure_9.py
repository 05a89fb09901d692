"""Figure 9, without its panel of human ratings: diversity by two embedders, and the entropy of the tokens.

python experiments/figure_9.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-9", __doc__))
