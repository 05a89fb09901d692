"""The resume checkpoint of a run that selects its best validated step."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from qd.callbacks.last_checkpoint import LastCheckpoint


class ValidatedCheckpoint(LastCheckpoint):
    """A ``last.ckpt`` that always includes the validation of its own step, so that a resumed run selects the same step.

    If a validation is due, the file is written after it. A stopped run does not validate before it ends, as Lightning
    would, because an uninterrupted run has no validation at that step.

    Args:
        folder: Folder of the run.
        every: Optimiser steps between two checkpoints.
        minutes: Longest time between two checkpoints.
        validate_every: Optimiser steps between two validations.
    """

    def __init__(self, folder: Path, every: int, minutes: float, validate_every: int) -> None:
        super().__init__(folder, every, minutes)
        self.validate_every = validate_every

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step % self.validate_every == 0:
            return
        if trainer.should_stop:
            trainer.limit_val_batches = 0
        super().on_step_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.save(trainer)
