"""Adherence as the cosine of a clip's and of its prompt's embedding, in the space that two towers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from qd.audio.resample import resample
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.embedders.clip_embedder import ClipEmbedder
from qd.scorers.protocol import check_rows


def prompt_cosine(audio: Tensor, prompts: Sequence[str], encode: Callable[[list[str]], Tensor]) -> Tensor:
    """Cosines ``(batch,)`` of unit-norm audio embeddings ``(batch, width)`` with those of their prompts.

    Args:
        audio: row i belongs to ``prompts[i]``.
        prompts: one for each row; each text is encoded once however often it repeats.
        encode: texts → unit-norm ``(texts, width)``.
    """
    row = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    text = encode(list(row))[[row[prompt] for prompt in prompts]]
    return (audio * text).sum(dim=-1)


class CosineScorer(nn.Module):
    """A published audio–text model as a scorer: cos(audio embedding, text embedding), with no affine map: scale 1,
    offset 0.

    Args:
        name: of the scorer.
        audio: the audio tower.
        text: the text tower, a module from texts to embeddings ``(texts, width)``.
    """

    def __init__(self, name: str, audio: ClipEmbedder, text: nn.Module) -> None:
        super().__init__()
        self.name, self.audio, self.text = name, audio, text
        self.version = fingerprint(self)[:8]
        self.eval()

    @property
    def sample_rate(self) -> int:
        """In Hz; other rates are resampled."""
        return self.audio.sample_rate

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Scores ``(batch,)`` in [−1, 1]. Raises ``ValueError`` when rows and prompts do not match."""
        check_rows(audio, prompts)
        heard = self.audio(resample(audio, sample_rate, self.sample_rate))
        return prompt_cosine(heard, prompts, lambda texts: nn.functional.normalize(self.text(texts), dim=-1))
