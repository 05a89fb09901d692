"""Learning rates as functions of the optimiser step alone, so that a resumed run needs no state for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup(step: int, warmup_steps: int) -> float:
    """Share of the learning rate at ``step``: up linearly over the warm-up, then 1."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def warmup_cosine(step: int, warmup_steps: int, max_steps: int) -> float:
    """Share of the peak learning rate at ``step``: :func:`warmup`, then down a half cosine to 0 at ``max_steps``."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def scheduled(optimizer: Optimizer, factor: Callable[[int], float]) -> dict[str, Any]:
    """What ``configure_optimizers`` returns where the learning rate is multiplied by ``factor(step)`` at each step."""
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
