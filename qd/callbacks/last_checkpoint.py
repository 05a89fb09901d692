"""The file from which a run goes on, and Ctrl-C, which must never leave a half-taken step in it."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from qd.callbacks.step_callback import StepCallback
from qd.runs.atomic import atomic_write
from qd.runs.folders import CHECKPOINT


class LastCheckpoint(StepCallback, Checkpoint):
    """Writes ``last.ckpt`` every ``every`` optimiser steps, at the end, and when the run is told to stop.

    Being a Lightning ``Checkpoint`` it runs after all other callbacks, so a measurement that is due at this step stands
    on disk before the checkpoint says that the step is done. A run killed at any moment finds either the old file or
    the new one.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path = Path(folder) / CHECKPOINT
        self.every = every

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.should_stop or trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            # All ranks take part, and the first one writes.
            with atomic_write(self.path) if trainer.is_global_zero else nullcontext(self.path) as file:
                trainer.save_checkpoint(file)


class GracefulInterrupt(StepCallback):
    """First Ctrl-C: finish the optimiser step and what follows it, save, stop. Second Ctrl-C: stop at once, unsaved.

    Lightning raises ``KeyboardInterrupt`` wherever it happens to be, possibly between the tensors of an optimiser
    step; weights saved then would belong to no step. ``requested`` tells the caller that the run did not end by itself.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._teller = os.getpid() if trainer.is_global_zero else None
        self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Ctrl-C reaches the ranks at different moments: they stop together, at the first step that one of them ends so.
        # A signal may come while they agree; it is not forgotten, and counts at the next step.
        agreed = trainer.strategy.reduce_boolean_decision(self.requested, all=False)
        self.requested = self.requested or agreed
        trainer.should_stop = trainer.should_stop or agreed

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()  # after an exception Lightning calls no teardown

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if os.getpid() == self._teller:  # forked loader workers have inherited this handler
            print("\nCtrl-C: finishing this step, then saving. Once more stops at once, without saving.", flush=True)


def fit_until_stopped(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    checkpoint: Path | None,
    interrupt: GracefulInterrupt,
    command: str,
) -> None:
    """Trains to the last step, from the checkpoint if there is one.

    Args:
        trainer: with ``interrupt`` among its callbacks.
        module: what is trained.
        data: what it is trained on.
        checkpoint: ``last.ckpt`` of a run that goes on.
        interrupt: tells whether Ctrl-C ended the fit.
        command: what to type to go on.

    Raises:
        KeyboardInterrupt: Ctrl-C; the message says what was saved and how to go on.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:  # what Lightning makes of a second Ctrl-C
        if not interrupt.requested:
            raise
        raise KeyboardInterrupt(_left_behind(trainer, command)) from stopped
    except Exception:
        _end_other_ranks(trainer)
        raise
    if interrupt.requested and trainer.global_step < trainer.max_steps:
        raise KeyboardInterrupt(f"step {trainer.global_step} is saved; to go on: {command}")


def _end_other_ranks(trainer: pl.Trainer) -> None:
    """Those that Lightning has started: it watches that none of them fails, and they do not watch this process, for
    whose part in a sum they would wait. Those of torchrun and srun are ended by them."""
    if kill := getattr(trainer.strategy.launcher, "kill", None):
        kill(signal.SIGKILL)  # a process that waits in a sum hears nothing gentler


def _left_behind(trainer: pl.Trainer, command: str) -> str:
    """What there is to go on from when nothing could be saved any more."""
    if any(isinstance(saver, LastCheckpoint) and saver.path.is_file() for saver in trainer.checkpoint_callbacks):
        return f"nothing was saved since {CHECKPOINT}; to go on: {command}"
    return f"nothing was saved, because the first {CHECKPOINT} was still to come; begin anew"
