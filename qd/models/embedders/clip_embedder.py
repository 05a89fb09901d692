"""Base classes of audio embedders: audio of any length is embedded by a model for short clips."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOWS_AT_ONCE = 32
"""Windows in one forward pass, unless the batch is larger: an hour of music has 900 windows of 4 s."""


class ClipEmbedder(nn.Module, ABC):
    """Audio ``(batch, samples)`` → unit-norm embeddings ``(batch, embedding_width)``.

    Audio longer than ``clip_seconds`` is cut into the smallest number of evenly spaced windows that cover it; the
    result is the normalised mean of their embeddings. Each subclass documents how it treats shorter audio.
    """

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Sample rate in Hz."""

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """Length of an embedding vector."""

    @property
    @abstractmethod
    def clip_seconds(self) -> float:
        """Longest clip of one forward pass, in seconds."""

    @abstractmethod
    def embed_clips(self, clips: Tensor) -> Tensor:
        """Embeds clips ``(batch, samples)`` of at most ``clip_seconds``.

        Returns:
            Embeddings ``(batch, embedding_width)`` of any norm.
        """

    def forward(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Embeds ``audio`` ``(batch, samples)``; returns unit-norm float32 embeddings ``(batch, embedding_width)``.

        Raises:
            ValueError: the audio is empty or not ``(batch, samples)``, or ``sample_rate`` is not the model's.
        """
        check_audio(audio, sample_rate, self.sample_rate)
        clips = windows(audio, round(self.clip_seconds * self.sample_rate))
        parts = clips.flatten(0, 1).split(max(len(audio), WINDOWS_AT_ONCE))
        embeddings = F.normalize(torch.cat([self.embed_clips(part) for part in parts]).float(), dim=-1)
        return F.normalize(embeddings.unflatten(0, clips.shape[:2]).mean(dim=1), dim=-1)


class FrozenEmbedder(ClipEmbedder):
    """An embedder around a third-party model: frozen, and always in eval mode because the model may contain dropout.

    Args:
        model: Model that the subclass's ``embed_clips`` calls.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenEmbedder:
        """Keeps eval mode, whatever ``mode`` is."""
        return super().train(False)


def check_audio(audio: Tensor, sample_rate: int | None, expected: int) -> None:
    """Raises ``ValueError`` unless the audio is a non-empty ``(batch, samples)`` at the expected sample rate."""
    if audio.ndim != 2 or audio.shape[1] == 0:
        raise ValueError(f"audio of shape {tuple(audio.shape)}: expected (batch, samples), at least one sample")
    if sample_rate is not None and sample_rate != expected:
        raise ValueError(f"audio at {sample_rate} Hz, the embedder expects {expected} Hz: resample it first")


def windows(audio: Tensor, length: int) -> Tensor:
    """Cuts ``(batch, samples)`` into the smallest number of windows that cover it, ``(batch, windows, length)``.

    The windows are evenly spaced and may overlap. Audio shorter than one window is returned as one window,
    ``(batch, 1, samples)``.
    """
    samples = audio.shape[1]
    if samples <= length:
        return audio[:, None]
    count = math.ceil(samples / length)
    starts = [round(i * (samples - length) / (count - 1)) for i in range(count)]
    return torch.stack([audio[:, start : start + length] for start in starts], dim=1)
