"""Starts a run at a later step, without the state of its optimiser."""

from __future__ import annotations

import lightning.pytorch as pl


class StartAt(pl.Callback):
    """Sets the step of a run whose weights come from a step folder: prompts, β and learning rate go on from there.

    Lightning counts steps in its loops and only loads these counts from a checkpoint, so they are set here.

    Args:
        step: Optimiser steps done.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop
        loop.automatic_optimization.optim_progress.optimizer.step.total.completed = self.step
        loop._batches_that_stepped = self.step  # the step of logged values
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            scheduler.last_epoch = self.step
            rates = [
                base * factor(self.step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            ]
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
