"""Audio of any length through a model that hears short clips: what all embedders of audio share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOWS_AT_ONCE = 32
"""Windows of a recording in one pass, or the batch, where that is larger: an hour of music has 900 windows of 4 s."""


class ClipEmbedder(nn.Module, ABC):
    """Audio ``(batch, samples)`` → unit-norm embeddings ``(batch, embedding_width)``.

    Audio longer than ``clip_seconds`` is cut into the fewest windows that cover it, spread evenly, and gets the
    normalised mean of their embeddings. What happens to shorter audio is a matter of the model, and said there.
    """

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """In Hz."""

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """Length of an embedding."""

    @property
    @abstractmethod
    def clip_seconds(self) -> float:
        """The longest clip that is heard at once."""

    @abstractmethod
    def embed_clips(self, clips: Tensor) -> Tensor:
        """Embeddings ``(batch, embedding_width)``, of any norm, of clips ``(batch, samples)`` of at most
        ``clip_seconds``."""

    def forward(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Unit-norm float32 embeddings ``(batch, embedding_width)`` of ``audio`` ``(batch, samples)``.

        Raises:
            ValueError: the audio is empty or not ``(batch, samples)``, or ``sample_rate`` is not the model's.
        """
        check_audio(audio, sample_rate, self.sample_rate)
        clips = windows(audio, round(self.clip_seconds * self.sample_rate))
        parts = clips.flatten(0, 1).split(max(len(audio), WINDOWS_AT_ONCE))
        embeddings = F.normalize(torch.cat([self.embed_clips(part) for part in parts]).float(), dim=-1)
        return F.normalize(embeddings.unflatten(0, clips.shape[:2]).mean(dim=1), dim=-1)


class FrozenEmbedder(ClipEmbedder):
    """An embedder made of somebody else's model: frozen, and in eval mode whatever is asked, for it may hold dropout.

    Args:
        model: what ``embed_clips`` of the subclass asks.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenEmbedder:
        """Stays in eval mode."""
        return super().train(False)


def check_audio(audio: Tensor, sample_rate: int | None, expected: int) -> None:
    """Raises ``ValueError`` unless the audio is ``(batch, samples)`` with a sample or more, at the rate expected."""
    if audio.ndim != 2 or audio.shape[1] == 0:
        raise ValueError(f"audio of shape {tuple(audio.shape)}: expected (batch, samples), at least one sample")
    if sample_rate is not None and sample_rate != expected:
        raise ValueError(f"audio at {sample_rate} Hz, the embedder hears {expected} Hz: resample it first")


def windows(audio: Tensor, length: int) -> Tensor:
    """Cuts ``(batch, samples)`` into the fewest windows that cover it, ``(batch, windows, length)``: evenly spread,
    overlapping where they must. Audio shorter than one window is a window as it is, ``(batch, 1, samples)``."""
    samples = audio.shape[1]
    if samples <= length:
        return audio[:, None]
    count = math.ceil(samples / length)
    starts = [round(i * (samples - length) / (count - 1)) for i in range(count)]
    return torch.stack([audio[:, start : start + length] for start in starts], dim=1)
