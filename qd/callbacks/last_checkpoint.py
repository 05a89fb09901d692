"""The checkpoint that a run resumes from, and a stop that never saves an incomplete step."""

from __future__ import annotations

import math
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from qd.callbacks.step_callback import StepCallback
from qd.runs.disk import disk_problem
from qd.runs.folders import CHECKPOINT
from qd.runs.signals import signal_name, stop_signal, stop_signals
from qd.runs.streams import print_from_handler


class LastCheckpoint(StepCallback, Checkpoint):
    """Writes ``last.ckpt`` at the start, every ``every`` optimiser steps, after ``minutes``, at the end, and at a stop.

    Lightning calls a ``Checkpoint`` after all other callbacks. So a measurement at this step is on disk before the
    checkpoint that includes the step. A run that is killed at any moment leaves either the old file or the new one.

    Args:
        folder: Folder of the run.
        every: Optimiser steps between two checkpoints.
        minutes: Longest time between two checkpoints; a step is finished first.
    """

    def __init__(self, folder: Path, every: int, minutes: float = math.inf) -> None:
        self.path = Path(folder) / CHECKPOINT
        self.every, self.minutes = every, minutes
        self._saved_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        if trainer.ckpt_path is None or Path(trainer.ckpt_path) != self.path:
            self.save(trainer)

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        if trainer.should_stop or step % self.every == 0 or step == trainer.max_steps or self.late(trainer):
            self.save(trainer)

    def late(self, trainer: pl.Trainer) -> bool:
        """Whether ``minutes`` have passed since the last checkpoint, by the clock of any rank."""
        late = time.monotonic() - self._saved_at >= 60 * self.minutes
        return trainer.strategy.reduce_boolean_decision(late, all=False)

    def save(self, trainer: pl.Trainer) -> None:
        """Writes the checkpoint; all ranks take part, and the first one writes."""
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()


class GracefulInterrupt(StepCallback):
    """Lets a stop signal end the run after the optimiser step; see :mod:`qd.runs.signals`.

    The first signal finishes the step, saves and stops; before the first step it stops at once, as nothing is lost. A
    later Ctrl-C stops at once, without saving. Lightning by default raises ``KeyboardInterrupt`` anywhere, even between
    the tensors of an optimiser step; the weights would then be a mixture of two steps.

    Attributes:
        requested: Whether a signal asked the run to stop after its step.
    """

    def __init__(self) -> None:
        self.requested = False
        self._training = self._first = False
        self._signals = ExitStack()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first = trainer.is_global_zero
        self._signals.enter_context(stop_signals(self._on_stop))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        self._training = True

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A signal reaches the ranks at different times. They stop together, at the first step after which one of them
        # has it. A signal during this exchange counts at the next step.
        agreed = trainer.strategy.reduce_boolean_decision(self.requested, all=False)
        self.requested = self.requested or agreed
        trainer.should_stop = trainer.should_stop or agreed

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._signals.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._signals.close()  # after an exception Lightning calls no teardown

    def _on_stop(self, number: int) -> None:
        if self.requested or not self._training:
            raise KeyboardInterrupt
        self.requested = True
        again = "Press it again" if number == signal.SIGINT else "Press Ctrl-C"
        if self._first:
            name = signal_name(number)
            print_from_handler(f"\n{name}: finishing this step, then saving. {again} to stop without saving.")


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
        interrupt: Callback that handles stop signals.
        command: Command that resumes the run, for the message.

    Raises:
        KeyboardInterrupt: If a signal stopped the run. The message says what is saved and how to resume.
        ValueError: A file could not be read or written, such as on a full disk; the message says the same.
    """
    # Lightning's own handlers would end a run at SIGTERM without saving, and requeue a SLURM job at SIGUSR1.
    trainer._signal_connector.register_signal_handlers = lambda: None
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:  # Lightning turns KeyboardInterrupt into it
        if stop_signal() is None:
            raise
        raise KeyboardInterrupt(_how_to_resume(trainer, command)) from stopped
    except Exception as error:
        _end_other_ranks(trainer)
        if isinstance(error, OSError) and error.errno is not None:
            go_on = f"resume from {CHECKPOINT if _saved(trainer) else 'step 0'}: {command}"
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
    return f"the run stopped before its first step; to start it: {command}"
