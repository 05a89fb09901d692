from __future__ import annotations

import subprocess
import sys


def test_lightning_stays_silent_when_a_command_imports_it_later():
    script = "from qd.runs.quiet import quieten_libraries; quieten_libraries(); import lightning.pytorch, logging; "
    script += "print(logging.getLogger('lightning.pytorch.utilities.rank_zero').isEnabledFor(logging.INFO))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
