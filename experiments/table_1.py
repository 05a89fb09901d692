"""Table 1: Vendi score and mean dissimilarity of each model.

python experiments/table_1.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("table-1", __doc__))
