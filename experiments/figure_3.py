"""Figure 3: the slider on the plane of quality and diversity, with guidance, temperature and single models.

python experiments/figure_3.py
"""

import sys

from qd.report.reproduction.figure_script import show

if __name__ == "__main__":
    sys.exit(show("figure-3", __doc__))
