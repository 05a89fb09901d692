"""Ctrl-C in an embedder run of two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.modules.tiny_embedder import TINY

WORKER = Path(__file__).parents[1] / "held_run.py"
ROOT = WORKER.parents[1]
OPTIONS = [
    *TINY,
    "codec.model=null",
    "objective.chunk_clips=3",
    "trainer.devices=2",
    "trainer.max_steps=5",
    "trainer.log_every=1",
]


def start(*options: str, hold: Path | None = None) -> subprocess.Popen[str]:
    """Starts ``qd train-embedder`` in its own process group, as a shell does."""
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "HOLD")}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"HOLD": str(hold)} if hold else {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, str(WORKER), "train-embedder", *options]
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def finished(process: subprocess.Popen[str], run: Path) -> dict:
    """Waits for the end of the run; returns its checkpoint."""
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert (run / "embedder" / "model.safetensors").is_file()
    return torch.load(run / "last.ckpt", weights_only=True)


def assert_equal(one: object, other: object) -> None:
    """Compares nested dictionaries and lists of tensors and numbers bit by bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        [assert_equal(value, other[key]) for key, value in one.items()]
    elif isinstance(one, list):
        [assert_equal(*pair) for pair in zip(one, other, strict=True)]
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.slow
def test_ctrl_c_with_two_ranks_saves_and_the_resumed_run_ends_bitwise_equal(tmp_path):
    settings = [*OPTIONS, f"trainer.runs={tmp_path}"]
    undisturbed = finished(start("--name=undisturbed", *settings), tmp_path / "undisturbed")
    # A terminal interrupts all processes of the group, `kill` only the first one.
    for name, interrupt in (("terminal", os.killpg), ("kill", os.kill)):
        run, release = tmp_path / name, tmp_path / f"{name}.go"
        process = start(f"--name={name}", *settings, hold=release)
        assert any(line == "held\n" for line in process.stdout), process.stderr.read()
        interrupt(process.pid, signal.SIGINT)
        release.touch()
        printed, errors = process.communicate(timeout=500)
        assert process.returncode == 130, errors
        assert printed.count("Ctrl-C: finishing this step") == 1
        assert errors.count(f"make train-embedder RESUME={run}\n") == 1
        assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 3
        resumed = finished(start("--resume", str(run)), run)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
            assert_equal(resumed[part], undisturbed[part])
