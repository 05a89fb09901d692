"""The file from which a run goes on, and Ctrl-C, which must never leave a half-taken step in it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from qd.callbacks.step_callback import StepCallback


class LastCheckpoint(StepCallback, Checkpoint):
    """Writes ``last.ckpt`` every ``every`` optimiser steps, at the end, and when the run is told to stop.

    Being a Lightning ``Checkpoint`` it runs after all other callbacks, so a measurement that is due at this step stands
    on disk before the checkpoint says that the step is done. The file is written beside its place and then renamed:
    a run killed at any moment finds either the old one or the new one.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path = Path(folder) / "last.ckpt"
        self.every = every

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.should_stop or trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            unfinished = self.path.with_suffix(".tmp")
            trainer.save_checkpoint(unfinished)
            if trainer.is_global_zero:
                os.replace(unfinished, self.path)


class GracefulInterrupt(StepCallback):
    """First Ctrl-C: finish the optimiser step and what follows it, save, stop. Second Ctrl-C: stop at once, unsaved.

    Lightning raises ``KeyboardInterrupt`` wherever it happens to be, possibly between the tensors of an optimiser
    step; weights saved then would belong to no step. ``requested`` tells the caller that the run did not end by itself.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.requested

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nCtrl-C: finishing this step, then saving. Once more stops at once, without saving.", flush=True)
