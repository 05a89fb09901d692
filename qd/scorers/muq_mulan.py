"""Adherence by MuQ-MuLan (the package ``muq``, an extra), the open model nearest to the paper's MuLan."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qd.models.checkpoints.pretrained import load_hub_mixin
from qd.models.embedders.clip_embedder import FrozenEmbedder
from qd.models.embedders.muq import bridged, lengthened
from qd.runs.extras import require
from qd.scorers.cosine import CosineScorer

MUQ_MULAN = "OpenMuQ/MuQ-MuLan-large"


class MuLanAudio(FrozenEmbedder):
    """The audio half of a ``muq.MuQMuLan``, 10 s at 24 kHz. Zeros follow a clip shorter than 1 s; the model itself lets
    a clip shorter than 10 s be followed by its own beginning, once at most."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return int(self.model.sr)

    @property
    def embedding_width(self) -> int:
        """Length of an embedding; 512 for the published model."""
        return int(self.model.config.mulan.dim_latent)

    @property
    def clip_seconds(self) -> float:
        """The model's own length."""
        return float(self.model.clip_secs)

    def embed_clips(self, clips: Tensor) -> Tensor:
        """``(batch, samples)`` → ``(batch, embedding_width)``."""
        return self.model(wavs=lengthened(clips), parallel_processing=True)


class MuLanText(nn.Module):
    """The text half: texts, English or Chinese, → embeddings ``(texts, width)``, each encoded by itself.

    The model averages over a batch's padding too, so that texts encoded together would change each other's score.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple: its weights are the audio half's, counted and moved once

    def forward(self, texts: Sequence[str]) -> Tensor:
        (model,) = self._model
        return torch.cat([model(texts=[text]) for text in texts])


def load_muq_mulan(source: str = MUQ_MULAN) -> CosineScorer:
    """Of a hub name or a folder. The model's config names two further models that it is built of, by hub name too.

    Raises:
        ValueError: the extra is not installed, or the model cannot be had.
    """
    model = bridged(load_hub_mixin(require("muq", "muq").MuQMuLan, source))
    return CosineScorer("muq-mulan", MuLanAudio(model), MuLanText(model))
