from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from qd.evaluation import embedder_baselines
from qd.evaluation.embedder_baselines import ClapEmbedder, MfccStatistics, find_clap
from qd.models.embedder import Embedder

RATE = 16_000


def clips(count: int, samples: int = 8000, seed: int = 0) -> torch.Tensor:
    """Noises of different colour."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, samples, generator=generator)
    return noise + torch.linspace(-1, 1, count)[:, None] * noise.roll(1, dims=1)


def test_mfcc_statistics_are_librosas_clip_by_clip():
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
    assert isinstance(embedder, Embedder) and embedder.embedding_width == 60


def test_mfcc_of_silence_is_finite_and_of_unit_norm():
    embedding = MfccStatistics.fit(clips(4), RATE)(torch.zeros(1, 8000))
    assert torch.isfinite(embedding).all() and embedding.norm() == pytest.approx(1.0)


def test_mfcc_statistics_need_clips_to_be_standardised_by():
    with pytest.raises(ValueError, match="1 clips.*expected 2 or more"):
        MfccStatistics.fit(clips(1), RATE)


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    """A CLAP of random weights that listens to 1 s."""
    folder = tmp_path_factory.mktemp("clap")
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    audio = {
        "spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "patch_embeds_hidden_size": 8,
        "depths": [1, 1], "num_attention_heads": [2, 2], "window_size": 4, "hidden_size": 16, "num_classes": 4,
    }  # fmt: skip
    config = ClapConfig(text_config={**text, "vocab_size": 40}, audio_config=audio, projection_dim=12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ClapModel(config)
    model.save_pretrained(folder)
    ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc").save_pretrained(folder)
    return folder


def test_clap_is_the_librarys_audio_embedding(clap_folder):
    embedder = find_clap(clap_folder)
    assert isinstance(embedder, Embedder) and embedder.sample_rate == 48_000 and embedder.embedding_width == 12
    audio = clips(3, 20_000)
    model, extractor = ClapModel.from_pretrained(clap_folder), ClapFeatureExtractor.from_pretrained(clap_folder)
    with torch.no_grad():
        for clip, embedding in zip(audio, embedder(audio, 48_000), strict=True):
            features = extractor(clip.numpy(), sampling_rate=48_000, return_tensors="pt")["input_features"]
            expected = model.audio_projection(model.audio_model(features).pooler_output)[0]
            torch.testing.assert_close(embedding, expected / expected.norm(), atol=1e-5, rtol=1e-4)


def test_clap_hears_the_whole_of_a_long_clip(clap_folder):
    embedder = find_clap(clap_folder)
    first, second = clips(2, 48_000)
    halves = embedder(torch.stack([first, second]))
    whole = embedder(torch.cat([first, second])[None])
    mean = halves.mean(0)
    torch.testing.assert_close(whole[0], mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_clap_that_is_not_there_is_none_unless_it_was_named(clap_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(embedder_baselines, "CLAP", "nobody/has-this-clap")
    assert find_clap() is None
    with pytest.raises(ValueError, match="does not exist"):
        find_clap(tmp_path / "none")
    with pytest.raises(ValueError, match="cannot be loaded"):
        find_clap(tmp_path)
    assert isinstance(find_clap(clap_folder), ClapEmbedder)


def test_another_sample_rate_is_refused(clap_folder):
    for embedder in (MfccStatistics.fit(clips(3), RATE), find_clap(clap_folder)):
        with pytest.raises(ValueError, match="at 8000 Hz.*resample"):
            embedder(clips(2), 8000)
