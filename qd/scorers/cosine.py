"""Adherence as the cosine between the embeddings of a clip and its prompt, in the shared space of two towers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from qd.audio.resample import resample
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.embedders.clip_embedder import ClipEmbedder
from qd.scorers.protocol import check_rows


def prompt_cosine(audio: Tensor, prompts: Sequence[str], encode: Callable[[list[str]], Tensor]) -> Tensor:
    """Returns the cosines ``(batch,)`` between audio embeddings and the embeddings of their prompts.

    Args:
        audio: Unit-norm audio embeddings ``(batch, width)``; row i belongs to ``prompts[i]``.
        prompts: One prompt per row; each distinct text is encoded once.
        encode: Function from texts to unit-norm embeddings ``(texts, width)``.
    """
    row = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    text = encode(list(row))[[row[prompt] for prompt in prompts]]
    return (audio * text).sum(dim=-1)


class CosineScorer(nn.Module):
    """A published audio–text model as a scorer: cos(audio embedding, text embedding), without an affine map.

    Args:
        name: Name of the scorer.
        audio: Audio tower.
        text: Text tower, a module from texts to embeddings ``(texts, width)``.
    """

    def __init__(self, name: str, audio: ClipEmbedder, text: nn.Module) -> None:
        super().__init__()
        self.name, self.audio, self.text = name, audio, text
        self.version = fingerprint(self)[:8]
        self.eval()

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz; other rates are resampled."""
        return self.audio.sample_rate

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Returns scores ``(batch,)`` in [−1, 1]. Raises ``ValueError`` if the numbers of clips and prompts differ."""
        check_rows(audio, prompts)
        embeddings = self.audio(resample(audio, sample_rate, self.sample_rate))
        return prompt_cosine(embeddings, prompts, lambda texts: nn.functional.normalize(self.text(texts), dim=-1))
