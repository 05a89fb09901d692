"""``qd`` as a program that can wait: ``held_run.py train-embedder …``.

If ``HOLD`` in the environment is the path of a file, every process waits for that file before step 3, and the first
one prints "held". At the end the first process lives longer than Lightning needs to check how the others ended.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from qd.cli.main import main
from qd.modules.embedder import EmbedderModule

HOLD = os.environ.get("HOLD")
FIRST = os.environ.get("LOCAL_RANK", "0") == "0"


def wait(module: EmbedderModule, batch: Any, batch_index: int) -> None:
    if module.global_step == 2:
        if FIRST:
            print("held", flush=True)
        while not Path(HOLD).exists():
            time.sleep(0.01)


if __name__ == "__main__":
    if HOLD:
        EmbedderModule.on_train_batch_start = wait
    status = main()
    if HOLD and FIRST:
        time.sleep(7)
    sys.exit(status)
