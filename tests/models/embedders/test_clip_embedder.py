"""Embedding audio of any length with a model for short clips."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qd.models.embedders.clip_embedder import ClipEmbedder, windows


class Moments(ClipEmbedder):
    """Mean and mean square of a clip of at most 100 samples, of any norm."""

    sample_rate, embedding_width, clip_seconds = 1000, 2, 0.1

    def embed_clips(self, clips: Tensor) -> Tensor:
        assert clips.shape[1] <= 100
        return torch.stack([clips.mean(dim=1), clips.square().mean(dim=1)], dim=1)


def noise(count: int, samples: int) -> Tensor:
    return torch.randn(count, samples, generator=torch.Generator().manual_seed(0)) + 0.3


@given(samples=st.integers(1, 200), length=st.integers(1, 60))
def test_windows_cover_every_sample_and_are_minimal(samples: int, length: int):
    cut = windows(torch.arange(1, samples + 1)[None], length)
    assert cut.shape == (1, -(-samples // length), min(samples, length))
    assert set(range(1, samples + 1)) == set(cut.flatten().tolist())


@pytest.mark.parametrize("samples", [1, 99, 100, 101, 250])
def test_every_window_has_the_same_weight(samples: int):
    audio, expected = noise(3, samples), torch.zeros(3, 2)
    for window in windows(audio, 100).unbind(dim=1):
        embedding = torch.stack([window.mean(1), window.square().mean(1)], dim=1)
        expected += embedding / embedding.norm(dim=1, keepdim=True)
    torch.testing.assert_close(Moments()(audio, 1000), expected / expected.norm(dim=1, keepdim=True))


def test_embeddings_are_always_float32():
    class Half(Moments):
        def embed_clips(self, clips: Tensor) -> Tensor:
            return super().embed_clips(clips).bfloat16()

    assert Half()(noise(1, 150)).dtype == torch.float32


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="8000 Hz.*1000 Hz.*resample"):
        Moments()(noise(1, 50), 8000)
    for wrong in (torch.zeros(50), torch.zeros(1, 0), torch.zeros(1, 1, 50)):
        with pytest.raises(ValueError, match=r"\(batch, samples\).*at least one sample"):
            Moments()(wrong)
