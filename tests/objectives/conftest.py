"""A policy so small that the tests can enumerate all of its sequences."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class ToyPolicy:
    """A tabular autoregressive policy over delayed codes: its logits are a table indexed by the whole past."""

    codebooks: int
    frames: int
    vocabulary: int

    @property
    def steps(self) -> int:
        return self.frames + self.codebooks - 1

    @property
    def mask(self) -> Tensor:
        rows = [[0 <= s - q < self.frames for s in range(self.steps)] for q in range(self.codebooks)]
        return torch.tensor(rows)

    @property
    def sequences(self) -> Tensor:
        """Every sequence, delayed, with pad = vocabulary: (sequences, codebooks, steps)."""
        positions = self.mask.nonzero().tolist()
        delayed = []
        for tokens in itertools.product(range(self.vocabulary), repeat=len(positions)):
            rows = torch.full((self.codebooks, self.steps), self.vocabulary)
            for (codebook, step), token in zip(positions, tokens, strict=True):
                rows[codebook, step] = token
            delayed.append(rows)
        return torch.stack(delayed)

    def table(self, seed: int) -> Tensor:
        """Returns random parameters: one row of logits for each past, codebook and step."""
        pasts = len(self.sequences)
        shape = (self.steps, self.codebooks, pasts, self.vocabulary)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def logits(self, table: Tensor) -> Tensor:
        """Returns the logits of every sequence: (sequences, codebooks, steps, vocabulary)."""
        pasts: dict[tuple, int] = {}
        out = []
        for sequence in self.sequences:
            for step in range(self.steps):
                past = pasts.setdefault((step, *sequence[:, :step].flatten().tolist()), len(pasts))
                out.append(table[step, :, past])
        return torch.stack(out).unflatten(0, (-1, self.steps)).transpose(1, 2)

    def naive_log_prob(self, table: Tensor, temperature: float) -> Tensor:
        """Returns log p of every sequence, token by token: (sequences,)."""
        totals = []
        for sequence, logits in zip(self.sequences, self.logits(table), strict=True):
            total = torch.zeros((), dtype=torch.float64)
            for q, s in self.mask.nonzero().tolist():
                weights = torch.exp(logits[q, s] / temperature)
                total = total + torch.log(weights[sequence[q, s]] / weights.sum())
            totals.append(total)
        return torch.stack(totals)

    def naive_kl(self, table: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Returns the summed divergence of every sequence, symbol by symbol: (sequences,)."""
        totals = []
        for student_logits, teacher_logits in zip(self.logits(table), self.logits(teacher), strict=True):
            total = torch.zeros((), dtype=torch.float64)
            for q, s in self.mask.nonzero().tolist():
                p = torch.exp(student_logits[q, s] / temperature)
                r = torch.exp(teacher_logits[q, s] / temperature)
                p, r = p / p.sum(), r / r.sum()
                for token in range(self.vocabulary):
                    total = total + p[token] * torch.log(p[token] / r[token])
            totals.append(total)
        return torch.stack(totals)


@pytest.fixture(scope="session")
def toy() -> type[ToyPolicy]:
    return ToyPolicy
