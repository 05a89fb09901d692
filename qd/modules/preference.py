"""Fits a preference head to comparisons of recordings with known embeddings."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from qd.config.checks import bounded, positive
from qd.data.comparisons import Comparisons
from qd.modules.schedules import warmup_cosine
from qd.objectives.bradley_terry import bradley_terry_loss

CHECKS = 40
"""Number of times that the held-out log loss is computed during a fit."""


@dataclass(frozen=True)
class HeadFit:
    """Settings of a fit.

    Attributes:
        max_steps: Largest number of optimiser steps. The step with the lowest held-out log loss is used.
        batch_size: Comparisons in a step.
        learning_rate: Peak learning rate of AdamW, after a short warm-up; it falls to 0.
        weight_decay: Weight decay of AdamW.
        seed: Seed for the batches.
    """

    max_steps: int = 500
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1.0
    seed: int = 0

    def problems(self) -> list[str]:
        """Returns one sentence for each invalid value."""
        return [
            *bounded("max_steps", self.max_steps, 1),
            *bounded("batch_size", self.batch_size, 1),
            *positive("learning_rate", self.learning_rate),
            *bounded("weight_decay", self.weight_decay, 0),
            *bounded("seed", self.seed, 0),
        ]


@dataclass(frozen=True)
class FitResult:
    """Result of a fit.

    Attributes:
        step: Step whose weights are used.
        log_loss: Held-out log loss of that step.
    """

    step: int
    log_loss: float


def fit_head(
    head: nn.Module, embeddings: Tensor, training: Comparisons, held_out: Comparisons, fit: HeadFit
) -> FitResult:
    """Trains a head in place with the Bradley–Terry loss, and keeps the step with the lowest held-out log loss.

    The embeddings are computed once, so a step is cheap and a plain loop is enough.

    Args:
        head: Maps embeddings ``(batch, width)`` to logits ``(batch, 1)``; on the CPU.
        embeddings: Embeddings of all recordings, ``(recordings, width)``.
        training: Comparisons to train on.
        held_out: Comparisons of other recordings.
        fit: Settings.
    """
    rng = np.random.default_rng(fit.seed)
    optimizer = torch.optim.AdamW(head.parameters(), fit.learning_rate, weight_decay=fit.weight_decay)
    schedule = partial(warmup_cosine, warmup_steps=max(1, fit.max_steps // 20), max_steps=fit.max_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    every = max(1, fit.max_steps // CHECKS)
    best, weights = FitResult(0, log_loss(logits(head, embeddings), held_out)), copy.deepcopy(head.state_dict())
    steps = range(1, fit.max_steps + 1)
    for step in track(steps, "fitting the head", console=Console(stderr=True), transient=True):
        rows = rng.choice(len(training), min(fit.batch_size, len(training)), replace=False)
        loss = _loss(head, embeddings, training, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % every == 0 or step == fit.max_steps:
            held_out_loss = log_loss(logits(head, embeddings), held_out)
            if held_out_loss < best.log_loss:
                best, weights = FitResult(step, held_out_loss), copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    return best


@torch.no_grad()
def logits(head: nn.Module, embeddings: Tensor) -> Tensor:
    """Maps embeddings ``(recordings, width)`` to logits ``(recordings,)``."""
    return head(embeddings).squeeze(-1)


def log_loss(logits: Tensor, compared: Comparisons) -> float:
    """Returns the mean Bradley–Terry loss of comparisons, each counted once. Chance has log 2."""
    first, second = logits[compared.first], logits[compared.second]
    return float(bradley_terry_loss(first, second, torch.from_numpy(compared.preferred)))


def _loss(head: nn.Module, embeddings: Tensor, compared: Comparisons, rows: np.ndarray) -> Tensor:
    first, second = (head(embeddings[side[rows]]).squeeze(-1) for side in (compared.first, compared.second))
    preferred, weight = (torch.from_numpy(values[rows]).to(first) for values in (compared.preferred, compared.weight))
    return bradley_terry_loss(first, second, preferred, weight)
