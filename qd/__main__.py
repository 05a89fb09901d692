"""``python -m qd``: the command line, for processes that start others."""

import sys

from qd.cli.main import main

sys.exit(main())
