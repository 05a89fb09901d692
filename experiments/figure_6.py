"""Figure 6: quality and diversity by guidance scale γ, with the negative prompt and unconditional.

python experiments/figure_6.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-6", __doc__))
