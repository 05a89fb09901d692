from __future__ import annotations

import math

import librosa
import numpy as np
import pytest
import torch

from qd.evaluation.embedder import baselines as embedder_baselines
from qd.evaluation.embedder.baselines import MfccStatistics, find_clap
from qd.models.embedders.clap import ClapEmbedder
from qd.models.embedders.loading import Embedder

RATE = 16_000


def clips(count: int, samples: int = 8000, seed: int = 0) -> torch.Tensor:
    """Noise clips with different spectra."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, samples, generator=generator)
    return noise + torch.linspace(-1, 1, count)[:, None] * noise.roll(1, dims=1)


def test_mfcc_statistics_equal_those_of_librosa():
    fitted, measured = clips(6), clips(3, seed=1)

    def statistics(clip):
        c = librosa.feature.mfcc(y=clip.numpy(), sr=RATE, n_mfcc=20)
        delta = librosa.feature.delta(c, mode="nearest")
        return [*(row.mean() for row in c), *(row.std() for row in c), *(row.std() for row in delta)]

    others = np.array([statistics(clip) for clip in fitted])
    expected = (np.array([statistics(clip) for clip in measured]) - others.mean(0)) / others.std(0, ddof=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    embedder = MfccStatistics.fit(fitted, RATE)
    np.testing.assert_allclose(embedder(measured, RATE), expected, atol=1e-4)
    assert isinstance(embedder, Embedder) and embedder.embedding_width == 60 and embedder.clip_seconds == math.inf


def test_mfcc_embedding_of_silence_is_finite_with_unit_norm():
    embedding = MfccStatistics.fit(clips(4), RATE)(torch.zeros(1, 8000))
    assert torch.isfinite(embedding).all() and embedding.norm() == pytest.approx(1.0)


def test_mfcc_statistics_need_two_clips():
    with pytest.raises(ValueError, match="1 clips.*expected 2 or more"):
        MfccStatistics.fit(clips(1), RATE)


def test_missing_clap_is_none_unless_a_folder_was_named(tiny_clap, tmp_path, monkeypatch):
    monkeypatch.setattr(embedder_baselines, "CLAP", "nobody/has-this-clap")
    assert find_clap() is None
    with pytest.raises(ValueError, match="does not exist"):
        find_clap(tmp_path / "none")
    with pytest.raises(ValueError, match="lacks config.json"):
        find_clap(tmp_path)
    assert isinstance(find_clap(tiny_clap), ClapEmbedder)


def test_another_sample_rate_is_an_error():
    with pytest.raises(ValueError, match="8000 Hz"):
        MfccStatistics.fit(clips(3), RATE)(clips(2), 8000)
