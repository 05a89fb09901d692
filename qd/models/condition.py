"""Text prompts as the decoder's input: text-encoder states and the mask of real tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Condition:
    """Text-encoder output for a batch of prompts, before the projection to the decoder's width.

    The null condition ("unconditional") has zero states and a mask that is False everywhere, as in the transformers
    library.

    Attributes:
        states: Text-encoder states ``(batch, length, text_width)``.
        mask: Boolean ``(batch, length)``, True at real tokens.
    """

    states: Tensor
    mask: Tensor

    @classmethod
    def null(
        cls, batch: int, width: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Condition:
        """Returns the unconditional condition of ``batch`` rows, for a text encoder of this ``width``."""
        states = torch.zeros(batch, 1, width, device=device, dtype=dtype)
        return cls(states, torch.zeros(batch, 1, device=device, dtype=torch.bool))

    def __len__(self) -> int:
        return self.states.shape[0]

    def repeat_interleave(self, n: int) -> Condition:
        """Repeats each row ``n`` times in a row: the batch of ``n`` samples per prompt, prompt by prompt."""
        return Condition(self.states.repeat_interleave(n, dim=0), self.mask.repeat_interleave(n, dim=0))

    def to(self, device: torch.device | str) -> Condition:
        return Condition(self.states.to(device), self.mask.to(device))

    def cat(self, other: Condition) -> Condition:
        """Concatenates the rows of ``self`` and ``other``; the shorter one is padded with masked zeros."""
        length = max(self.states.shape[1], other.states.shape[1])
        first, second = self._padded(length), other._padded(length)
        return Condition(torch.cat([first.states, second.states]), torch.cat([first.mask, second.mask]))

    def _padded(self, length: int) -> Condition:
        missing = length - self.states.shape[1]
        return Condition(F.pad(self.states, (0, 0, 0, missing)), F.pad(self.mask, (0, missing)))


def text_too_long(text: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Returns the end of an error message ("…, and … reads …; shorten it") if a text is too long, else None."""
    limit, length = tokenizer.model_max_length, len(tokenizer(text, verbose=False)["input_ids"])
    if length <= limit:
        return None
    return f"{length:,} tokens, and the model's text encoder reads {limit:,}; shorten it"
