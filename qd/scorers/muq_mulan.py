"""Adherence scores from MuQ-MuLan (extra ``muq``), the open model that is most similar to the paper's MuLan."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qd.models.checkpoints.pretrained import load_hub_mixin
from qd.models.embedders.clip_embedder import FrozenEmbedder
from qd.models.embedders.muq import pad_short_clips, with_transformers_5
from qd.runs.extras import require
from qd.scorers.cosine import CosineScorer

MUQ_MULAN = "OpenMuQ/MuQ-MuLan-large"


class MuLanAudio(FrozenEmbedder):
    """The audio tower of a ``muq.MuQMuLan``, for 10 s at 24 kHz.

    A clip shorter than 1 s is padded with zeros. The model extends a clip shorter than 10 s by its own beginning, at
    most once.
    """

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return int(self.model.sr)

    @property
    def embedding_width(self) -> int:
        """Length of an embedding vector; 512 for the published model."""
        return int(self.model.config.mulan.dim_latent)

    @property
    def clip_seconds(self) -> float:
        """Length of the model's clips, in seconds."""
        return float(self.model.clip_secs)

    def embed_clips(self, clips: Tensor) -> Tensor:
        """Embeds clips ``(batch, samples)``; returns ``(batch, embedding_width)``."""
        return self.model(wavs=pad_short_clips(clips), parallel_processing=True)


class MuLanText(nn.Module):
    """The text tower: maps English or Chinese texts to embeddings ``(texts, width)``.

    Each text is encoded separately: the model averages over padding too, so texts of one batch would change each
    other's scores.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple: the audio tower already registers these weights

    def forward(self, texts: Sequence[str]) -> Tensor:
        (model,) = self._model
        return torch.cat([model(texts=[text]) for text in texts])


def load_muq_mulan(source: str = MUQ_MULAN) -> CosineScorer:
    """Loads a hub name or a folder; the model's config names two further hub models, which are parts of the model.

    Raises:
        ValueError: the extra is not installed, or the model cannot be loaded.
    """
    model = with_transformers_5(load_hub_mixin(require("muq", "muq").MuQMuLan, source))
    return CosineScorer("muq-mulan", MuLanAudio(model), MuLanText(model))
