"""Table 4: text adherence of each model over the prompts.

python experiments/table_4.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("table-4", __doc__))
