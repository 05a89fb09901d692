from __future__ import annotations

import subprocess
import sys


def test_lightning_stays_silent_when_a_command_imports_it_later():
    script = "from qd.runs.quiet import quieten_libraries; quieten_libraries(); import lightning.pytorch, logging; "
    script += "print(logging.getLogger('lightning.pytorch.utilities.rank_zero').isEnabledFor(logging.INFO))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_new_run_does_not_warn_that_its_own_folder_has_a_config(tmp_path):
    (tmp_path / "config.yaml").touch()
    script = "from qd.runs.quiet import quieten_libraries; quieten_libraries(); import lightning.pytorch as pl; "
    script += "from lightning.pytorch.callbacks import ModelCheckpoint; "
    script += f"best = ModelCheckpoint({str(tmp_path)!r}); "
    script += "best.setup(pl.Trainer(logger=False, accelerator='cpu'), None, 'fit')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "not empty" not in result.stderr
