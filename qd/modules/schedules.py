"""Learning rates that depend only on the optimiser step, so that a resumed run needs no state for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup(step: int, warmup_steps: int) -> float:
    """Returns the share of the learning rate at ``step``: linear up to 1 over the warm-up, then 1."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def warmup_cosine(step: int, warmup_steps: int, max_steps: int) -> float:
    """Returns the share of the peak learning rate at ``step``: :func:`warmup`, then half a cosine down to 0.

    Args:
        step: Optimiser step.
        warmup_steps: Steps of the warm-up.
        max_steps: Step at which the learning rate reaches 0.
    """
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def scheduled(optimizer: Optimizer, factor: Callable[[int], float]) -> dict[str, Any]:
    """Returns the value for ``configure_optimizers`` that multiplies the learning rate by ``factor(step)``."""
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
