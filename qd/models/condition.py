"""What a text prompt is to the decoder: text-encoder states and the mask of the real ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Condition:
    """Text-encoder output of a batch of prompts, before the projection to the decoder's width.

    The null condition ("unconditional") is zeros with a mask that is False everywhere, as in the transformers library.

    Attributes:
        states: ``(batch, length, text_width)``.
        mask: ``(batch, length)`` boolean, True at real tokens.
    """

    states: Tensor
    mask: Tensor

    @classmethod
    def null(
        cls, batch: int, width: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Condition:
        """The unconditional condition for ``batch`` rows of a text encoder of this ``width``."""
        states = torch.zeros(batch, 1, width, device=device, dtype=dtype)
        return cls(states, torch.zeros(batch, 1, device=device, dtype=torch.bool))

    def __len__(self) -> int:
        return self.states.shape[0]

    def repeat_interleave(self, n: int) -> Condition:
        """Every row ``n`` times in a row: the prompt-major batch of ``n`` samples a prompt."""
        return Condition(self.states.repeat_interleave(n, dim=0), self.mask.repeat_interleave(n, dim=0))

    def to(self, device: torch.device | str) -> Condition:
        return Condition(self.states.to(device), self.mask.to(device))

    def cat(self, other: Condition) -> Condition:
        """Rows of ``self``, then rows of ``other``; the shorter one is padded with masked zeros."""
        length = max(self.states.shape[1], other.states.shape[1])
        first, second = self._padded(length), other._padded(length)
        return Condition(torch.cat([first.states, second.states]), torch.cat([first.mask, second.mask]))

    def _padded(self, length: int) -> Condition:
        missing = length - self.states.shape[1]
        return Condition(F.pad(self.states, (0, 0, 0, missing)), F.pad(self.mask, (0, missing)))


def text_too_long(text: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What is wrong with the length of one text, if anything; to follow the words "it has"."""
    limit, length = tokenizer.model_max_length, len(tokenizer(text, verbose=False)["input_ids"])
    if length <= limit:
        return None
    return f"{length:,} tokens, and the model's text encoder reads {limit:,}; shorten it"
