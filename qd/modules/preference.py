"""Fitting a preference head to comparisons of recordings whose embeddings are known."""

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
"""How often the held-out log loss is looked at."""


@dataclass(frozen=True)
class HeadFit:
    """How a head is fitted.

    Attributes:
        max_steps: optimiser steps at most; the step of the lowest held-out log loss is kept.
        batch_size: comparisons a step.
        learning_rate: of AdamW, after a short warm-up, falling to 0.
        weight_decay: of AdamW.
        seed: of the initial weights and of the batches.
    """

    max_steps: int = 500
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1.0
    seed: int = 0

    def problems(self) -> list[str]:
        """Every invalid value, one sentence each."""
        return [
            *bounded("max_steps", self.max_steps, 1),
            *bounded("batch_size", self.batch_size, 1),
            *positive("learning_rate", self.learning_rate),
            *bounded("weight_decay", self.weight_decay, 0),
            *bounded("seed", self.seed, 0),
        ]


@dataclass(frozen=True)
class Fitted:
    """What the fit ended with: the step whose weights were kept, and the held-out log loss there."""

    step: int
    log_loss: float


def fit_head(head: nn.Module, embeddings: Tensor, learned: Comparisons, held_out: Comparisons, fit: HeadFit) -> Fitted:
    """Trains the head in place by the Bradley–Terry loss, and leaves it at the step of the lowest held-out log loss.

    The embedder is frozen and each recording was heard once, so that a step costs next to nothing, and a plain loop
    over the embeddings is all there is to it.

    Args:
        head: embedding ``(batch, width)`` → logit ``(batch, 1)``; on the CPU.
        embeddings: of all recordings, ``(recordings, width)``.
        learned: comparisons to learn from.
        held_out: comparisons of other recordings.
        fit: how.
    """
    rng = np.random.default_rng(fit.seed)
    optimizer = torch.optim.AdamW(head.parameters(), fit.learning_rate, weight_decay=fit.weight_decay)
    schedule = partial(warmup_cosine, warmup_steps=max(1, fit.max_steps // 20), max_steps=fit.max_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    every = max(1, fit.max_steps // CHECKS)
    best, weights = Fitted(0, log_loss(logits(head, embeddings), held_out)), copy.deepcopy(head.state_dict())
    steps = range(1, fit.max_steps + 1)
    for step in track(steps, "fitting the head", console=Console(stderr=True), transient=True):
        rows = rng.choice(len(learned), min(fit.batch_size, len(learned)), replace=False)
        loss = _loss(head, embeddings, learned, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % every == 0 or step == fit.max_steps:
            found = log_loss(logits(head, embeddings), held_out)
            if found < best.log_loss:
                best, weights = Fitted(step, found), copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    return best


@torch.no_grad()
def logits(head: nn.Module, embeddings: Tensor) -> Tensor:
    """Logits ``(recordings,)`` of embeddings ``(recordings, width)``."""
    return head(embeddings).squeeze(-1)


def log_loss(logits: Tensor, compared: Comparisons) -> float:
    """Bradley–Terry loss a comparison, each counted once; log 2 is chance."""
    first, second = logits[compared.first], logits[compared.second]
    return float(bradley_terry_loss(first, second, torch.from_numpy(compared.preferred)))


def _loss(head: nn.Module, embeddings: Tensor, compared: Comparisons, rows: np.ndarray) -> Tensor:
    first, second = (head(embeddings[side[rows]]).squeeze(-1) for side in (compared.first, compared.second))
    preferred, weight = (torch.from_numpy(values[rows]).to(first) for values in (compared.preferred, compared.weight))
    return bradley_terry_loss(first, second, preferred, weight)
