from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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


def test_a_full_disk_under_tensorboard_is_an_error_of_the_next_value_without_a_traceback(tmp_path):
    script = """
import sys, time
from torch.utils.tensorboard import SummaryWriter
from qd.runs.quiet import quieten_libraries
from tests.runs.full_disk import full_disk
quieten_libraries()
writer = SummaryWriter(sys.argv[1])
with full_disk(2000):
    try:
        for step in range(10_000):
            writer.add_text("a", "x" * 100, step)
    except OSError as error:
        print("raised", error.errno)
    try:
        writer.close()
    except OSError:
        pass
"""
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == f"raised {errno.EFBIG}\n" and "Traceback" not in result.stderr
