"""The checkpoint that a run resumes from, and a Ctrl-C that never saves an incomplete step."""

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
from qd.runs.disk import disk_problem
from qd.runs.folders import CHECKPOINT


class LastCheckpoint(StepCallback, Checkpoint):
    """Writes ``last.ckpt`` every ``every`` optimiser steps, at the end, and when the run is stopped.

    Lightning calls a ``Checkpoint`` after all other callbacks. So a measurement at this step is on disk before the
    checkpoint that includes the step. A run that is killed at any moment leaves either the old file or the new one.

    Args:
        folder: Folder of the run.
        every: Optimiser steps between two checkpoints.
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
    """First Ctrl-C: finishes the optimiser step, saves and stops. Second Ctrl-C: stops at once, without saving.

    Lightning by default raises ``KeyboardInterrupt`` anywhere, even between the tensors of an optimiser step; the
    weights would then be a mixture of two steps.

    Attributes:
        requested: Whether Ctrl-C stopped the run.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._main_pid = os.getpid() if trainer.is_global_zero else None
        self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Ctrl-C reaches the ranks at different times. They stop together, at the first step after which one of them has
        # it. A signal during this exchange counts at the next step.
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
        if os.getpid() == self._main_pid:  # forked data loader workers inherit this handler
            print("\nCtrl-C: finishing this step, then saving. Press it again to stop without saving.", flush=True)


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
        trainer: The trainer, with ``interrupt`` among its callbacks.
        module: The module to train.
        data: The training data.
        checkpoint: ``last.ckpt`` of a run to resume.
        interrupt: Callback that handles Ctrl-C.
        command: Command that resumes the run, for the message.

    Raises:
        KeyboardInterrupt: If Ctrl-C stopped the run. The message says what is saved and how to resume.
        ValueError: A file could not be read or written, such as on a full disk; the message says the same.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:  # raised by Lightning at the second Ctrl-C
        if not interrupt.requested:
            raise
        raise KeyboardInterrupt(_how_to_resume(trainer, command)) from stopped
    except Exception as error:
        _end_other_ranks(trainer)
        if isinstance(error, OSError) and error.errno is not None:
            go_on = f"resume from {CHECKPOINT}: {command}" if _saved(trainer) else "start the run again"
            raise ValueError(disk_problem(error, go_on, trainer.log_dir)) from error
        raise
    if interrupt.requested and trainer.global_step < trainer.max_steps:
        raise KeyboardInterrupt(f"step {trainer.global_step} is saved; to resume: {command}")


def _end_other_ranks(trainer: pl.Trainer) -> None:
    """Ends the other ranks if Lightning has started them: they would wait for this process in a collective operation.

    Lightning only watches for the failure of the others. torchrun and srun end their processes themselves.
    """
    if kill := getattr(trainer.strategy.launcher, "kill", None):
        kill(signal.SIGKILL)  # a process that waits in a collective operation ignores weaker signals


def _saved(trainer: pl.Trainer) -> bool:
    return any(isinstance(saver, LastCheckpoint) and saver.path.is_file() for saver in trainer.checkpoint_callbacks)


def _how_to_resume(trainer: pl.Trainer, command: str) -> str:
    """Returns how to resume a run whose last steps could not be saved."""
    if _saved(trainer):
        return f"nothing was saved since {CHECKPOINT}; to resume from it: {command}"
    return f"nothing was saved, because the run stopped before its first {CHECKPOINT}; start it again"
