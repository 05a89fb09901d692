"""A hook that Lightning does not have: the end of an *optimiser* step, with any number of accumulated micro-batches."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


class StepCallback(pl.Callback):
    """Calls :meth:`on_step_end` once after each optimiser step, which ``trainer.global_step`` then includes."""

    _step = 0

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called after an optimiser step and before the first micro-batch of the next one."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self.on_step_end(trainer, pl_module)
