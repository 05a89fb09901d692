"""Starts commands in their own process group, and waits for their end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def launch(command: list[str], **variables: str) -> subprocess.Popen[str]:
    """Starts the command with these environment variables, and without those of an outer run."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "QD_RUN_FOLDER", "MASTER_PORT", "NODE_RANK"):
        environment.pop(name, None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment | variables, start_new_session=True, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Waits until all processes have closed standard output; returns output and errors."""
    try:
        return process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
