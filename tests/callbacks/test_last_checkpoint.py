"""When ``last.ckpt`` is written, and how signals stop a run."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from qd.callbacks.last_checkpoint import GracefulInterrupt, LastCheckpoint, fit_until_stopped
from qd.callbacks.start_at import StartAt
from qd.runs.checkpoints import AtomicCheckpoints
from qd.runs.signals import stop_status
from tests.callbacks.toy_run import Data, Policy, build_trainer, fit


class Watched(LastCheckpoint):
    """Records the steps at which it saves."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.steps: list[int] = []

    def save(self, trainer: pl.Trainer) -> None:
        super().save(trainer)
        self.steps.append(trainer.global_step)


class Signals(GracefulInterrupt):
    """Receives these signals in the step after step 3."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = numbers

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if trainer.global_step == 3:
            for number in self.numbers:
                signal.raise_signal(number)


def stopped(folder: Path, *numbers: int, every: int = 100) -> str:
    """Returns the message of a run that receives these signals."""
    interrupt = Signals(*numbers)
    trainer = build_trainer(interrupt, LastCheckpoint(folder, every))
    with pytest.raises(KeyboardInterrupt) as caught:
        fit_until_stopped(trainer, Policy(), Data(), None, interrupt, "resume it")
    return str(caught.value)


def saved_step(folder: Path) -> int:
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


def test_the_checkpoint_is_written_at_the_start_by_steps_and_at_the_end(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 4)
    fit(Policy(), watched)
    assert watched.steps == [0, 4, 6]


def test_the_checkpoint_is_written_by_time(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 100, 1e-9)
    fit(Policy(), watched)
    assert watched.steps == [0, 1, 2, 3, 4, 5, 6]


def test_another_rank_that_is_late_makes_all_ranks_save(tmp_path: Path) -> None:
    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=lambda mine, all: not mine))
    assert LastCheckpoint(tmp_path, 100).late(trainer)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_signal_saves_the_step_and_restores_the_handlers(tmp_path: Path, name: str) -> None:
    number = signal.Signals[name]
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    message = stopped(tmp_path, number)
    assert "step 4 is saved" in message and "resume it" in message
    assert saved_step(tmp_path) == 4
    assert stop_status() == 128 + number
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


def test_only_ctrl_c_hurries_a_stop(tmp_path: Path) -> None:
    """A closing terminal, or a batch system at its time limit, sends several signals."""
    assert "step 4 is saved" in stopped(tmp_path, signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM)
    assert stop_status() == 128 + signal.SIGUSR1
    assert "nothing was saved since last.ckpt" in stopped(tmp_path, signal.SIGTERM, signal.SIGINT)
    assert "nothing was saved since last.ckpt" in stopped(tmp_path, signal.SIGINT, signal.SIGINT, every=2)
    assert saved_step(tmp_path) == 2


class Measuring(pl.Callback):
    """Receives a signal before the first step."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_before_the_first_step_a_run_stops_at_once(tmp_path: Path) -> None:
    module, interrupt = Policy(), GracefulInterrupt()
    trainer = build_trainer(Measuring(), interrupt, LastCheckpoint(tmp_path, 2))
    with pytest.raises(KeyboardInterrupt, match="before its first step.*resume it"):
        fit_until_stopped(trainer, module, Data(), None, interrupt, "resume it")
    assert trainer.global_step == 0


def test_ctrl_c_while_the_ranks_communicate_counts_at_the_next_step() -> None:
    interrupt = GracefulInterrupt()
    interrupt.on_train_batch_start(None, None, None, 0)

    def decide(decision: bool, all: bool) -> bool:
        if not interrupt.requested:
            interrupt._on_stop(signal.SIGINT)
        return decision

    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=decide), should_stop=False)
    interrupt.on_step_end(trainer, None)
    assert not trainer.should_stop and interrupt.requested
    interrupt.on_step_end(trainer, None)
    assert trainer.should_stop


def test_a_batch_system_does_not_requeue_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variables of srun, Lightning would write hpc_ckpt_1.ckpt and call scontrol at SIGUSR1."""
    called = tmp_path / "called"
    command = tmp_path / "scontrol"
    command.write_text(f"#!/bin/sh\ntouch {called}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name, value in {"NTASKS": "1", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.chdir(tmp_path)
    assert "step 4 is saved" in stopped(tmp_path, signal.SIGUSR1)
    assert not called.exists() and not list(tmp_path.glob("hpc_ckpt*"))


def test_a_checkpoint_needs_no_room_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    checkpoints, file = AtomicCheckpoints(), tmp_path / "run" / "last.ckpt"
    checkpoints.save_checkpoint({"weight": torch.ones(3)}, file)
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]
    assert torch.load(file)["weight"].tolist() == [1, 1, 1]


def test_a_checkpoint_that_cannot_be_written_keeps_the_old_one(tmp_path: Path, monkeypatch) -> None:
    checkpoints, file = AtomicCheckpoints(), tmp_path / "last.ckpt"
    checkpoints.save_checkpoint({"step": 1}, file)

    def fail(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="last.ckpt"):
        checkpoints.save_checkpoint({"step": 2}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(file) == {"step": 1}


def test_a_run_can_start_at_a_later_step(tmp_path: Path) -> None:
    module, watched = Policy(), Watched(tmp_path, 5)
    fit(module, StartAt(4), watched)
    assert watched.steps == [4, 5, 6]
    torch.testing.assert_close(module.weight.detach(), torch.full((3,), 0.8**2))  # two steps of w <- w - 0.2 w
