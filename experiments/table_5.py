"""Table 5: Fréchet audio distance of each model to held-out pieces.

python experiments/table_5.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("table-5", __doc__))
