"""The diversity coefficient β as a function of the optimiser step."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


def beta_at(step: int, beta: float, ramp_steps: int) -> float:
    """Returns β · min(1, step / ramp_steps): linear from 0, then constant (paper, Section 3.2: 1,000 steps).

    Args:
        step: Optimiser step.
        beta: Final value β.
        ramp_steps: Steps of the ramp. 0: β from the first step.
    """
    return beta if step >= ramp_steps else beta * step / ramp_steps


class BetaSchedule(pl.Callback):
    """Sets the module's ``beta`` before each step; it depends only on ``global_step``, so a resume needs no state.

    Args:
        beta: Final value β.
        ramp_steps: Steps of the ramp.
    """

    def __init__(self, beta: float, ramp_steps: int) -> None:
        self.beta = beta
        self.ramp_steps = ramp_steps

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        pl_module.beta = beta_at(trainer.global_step, self.beta, self.ramp_steps)
