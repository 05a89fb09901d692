"""The diversity coefficient as a function of the optimiser step."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


def beta_at(step: int, beta: float, ramp_steps: int) -> float:
    """β · min(1, step / ramp_steps): linear from 0, then constant (§3.1 of the paper: 1,000 steps).

    A ramp of 0 steps is β from the start.
    """
    return beta if step >= ramp_steps else beta * step / ramp_steps


class BetaSchedule(pl.Callback):
    """Sets the module's ``beta`` before each step, from ``global_step`` alone: a resumed run needs no state."""

    def __init__(self, beta: float, ramp_steps: int) -> None:
        self.beta = beta
        self.ramp_steps = ramp_steps

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        pl_module.beta = beta_at(trainer.global_step, self.beta, self.ramp_steps)
