"""Training sequences in memory, and the batch of every step as a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

_ORDER, _DROP = 0, 1  # streams of random numbers of one seed


class Batch(NamedTuple):
    """Sequences of one step.

    Attributes:
        codes: (batch, codebooks, frames) long.
        ids: caption tokens (batch, length) long, padded behind.
        mask: (batch, length) bool, True at caption tokens; a row that is False everywhere is the null condition.
    """

    codes: Tensor
    ids: Tensor
    mask: Tensor


class CaptionedCodes:
    """Codes with their captions, tokenised once.

    Args:
        codes: (clips, codebooks, frames) integers.
        captions: one for each clip.
        tokenizer: of the text encoder.

    Raises:
        ValueError: if there is not one caption for each clip.
    """

    def __init__(self, codes: Tensor, captions: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        if len(codes) != len(captions):
            raise ValueError(f"{len(codes)} clips have {len(captions)} captions: encode the clips again")
        tokens = tokenizer(list(captions), padding=True, return_tensors="pt")
        self.codes = codes
        self.ids = tokens.input_ids.to(torch.int16)  # the vocabulary is far below 2¹⁵
        self.lengths = tokens.attention_mask.sum(1)

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Tensor | Sequence[int]) -> Batch:
        """The clips of these indices with their captions, padded to the longest of them."""
        rows = torch.as_tensor(rows)
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        mask = torch.arange(longest) < lengths[:, None]
        return Batch(self.codes[rows].long(), self.ids[rows, :longest].long(), mask)

    def training_batch(self, step: int, *, size: int, condition_dropout: float, seed: int) -> Batch:
        """Batch of step ``step`` (0-based): each epoch goes through the clips once, in an order of its own.

        Every caption is dropped (null condition) with probability ``condition_dropout``, drawn for each row and step.

        Raises:
            ValueError: if there are fewer clips than a batch holds.
        """
        if size > len(self):
            raise ValueError(f"{len(self)} clips are fewer than base.batch_size {size}: raise tokens.clips or lower it")
        epoch, position = divmod(step, len(self) // size)
        batch = self.take(_order(seed, epoch, len(self))[position * size : (position + 1) * size])
        kept = np.random.default_rng((seed, _DROP, step)).random(size) >= condition_dropout
        return batch._replace(mask=batch.mask & torch.from_numpy(kept)[:, None])


def without_captions(batch: Batch) -> Batch:
    """The same sequences under the null condition."""
    return batch._replace(mask=torch.zeros_like(batch.mask))


def with_wrong_captions(batch: Batch) -> Batch:
    """The same sequences, each with the caption of the row before it."""
    return batch._replace(ids=batch.ids.roll(1, dims=0), mask=batch.mask.roll(1, dims=0))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, clips: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, _ORDER, epoch)).permutation(clips))
