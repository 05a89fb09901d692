"""Training sequences in memory; the batch of a step is a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

_ORDER, _DROP = 0, 1  # separate random streams of one seed


class Batch(NamedTuple):
    """Sequences of one step.

    Attributes:
        codes: Codes (batch, codebooks, frames) long.
        ids: Caption tokens (batch, length) long, padded on the right.
        mask: (batch, length) bool, True at caption tokens; a row without any True is the null condition.
    """

    codes: Tensor
    ids: Tensor
    mask: Tensor


class CaptionedCodes:
    """Codes with their captions, tokenised once.

    Args:
        codes: Codes (clips, codebooks, frames), integers.
        captions: One caption for each clip.
        tokenizer: Tokenizer of the text encoder.

    Raises:
        ValueError: The numbers of clips and captions differ.
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
        """Returns the clips at these indices with their captions, padded to the longest caption."""
        rows = torch.as_tensor(rows)
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        mask = torch.arange(longest) < lengths[:, None]
        return Batch(self.codes[rows].long(), self.ids[rows, :longest].long(), mask)

    def training_batch(self, step: int, *, size: int, condition_dropout: float, seed: int) -> Batch:
        """Returns the batch of a step (0-based); each epoch visits every clip once, in a new order.

        Each caption is dropped (null condition) with probability ``condition_dropout``, drawn for each row and step.

        Raises:
            ValueError: There are fewer clips than ``size``.
        """
        if size > len(self):
            raise ValueError(
                f"{len(self)} clips are fewer than base.batch_size={size}: raise tokens.clips or lower base.batch_size"
            )
        epoch, position = divmod(step, len(self) // size)
        batch = self.take(_order(seed, epoch, len(self))[position * size : (position + 1) * size])
        with_caption = np.random.default_rng((seed, _DROP, step)).random(size) >= condition_dropout
        return batch._replace(mask=batch.mask & torch.from_numpy(with_caption)[:, None])


def without_captions(batch: Batch) -> Batch:
    """Returns the same sequences under the null condition."""
    return batch._replace(mask=torch.zeros_like(batch.mask))


def with_wrong_captions(batch: Batch) -> Batch:
    """Returns the same sequences, each with the caption of the previous row."""
    return batch._replace(ids=batch.ids.roll(1, dims=0), mask=batch.mask.roll(1, dims=0))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, clips: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, _ORDER, epoch)).permutation(clips))
