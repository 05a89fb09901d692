from __future__ import annotations

import shutil

import pytest
import torch
from tokenizers import Tokenizer

from qd.builtin.tokenizer import train_tokenizer
from qd.models.embedders.audio_vit import AudioViTConfig
from qd.scorers.adherence import AdherenceConfig, AdherenceScorer, TextTowerConfig
from qd.scorers.preference import PreferenceConfig, PreferenceScorer

RATE = 16_000
SMALL = {"clip_seconds": 0.32, "n_mels": 20, "layers": 1, "width": 16, "heads": 2, "head_dim": 8, "mlp_width": 32}


def tokenizer(vocabulary: int = 300) -> Tokenizer:
    return train_tokenizer(["a calm piano piece", "fast drums and a bass"], vocabulary).backend_tokenizer


def adherence(scale: float = 2.0, offset: float = -0.5) -> AdherenceScorer:
    text = TextTowerConfig(vocabulary=300, max_tokens=24, layers=1, width=16, heads=2, mlp_width=32, embedding_width=8)
    config = AdherenceConfig(AudioViTConfig(embedding_width=8, **SMALL), text, scale, offset)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AdherenceScorer(config, tokenizer()).eval()


def preference(scale: float = 3.0, offset: float = 0.25) -> PreferenceScorer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PreferenceScorer(PreferenceConfig(AudioViTConfig(embedding_width=8, **SMALL), 16, scale, offset)).eval()


def clips(count: int = 3, samples: int = 5120) -> torch.Tensor:
    return 0.3 * torch.randn(count, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [adherence, preference])
def test_a_loaded_scorer_gives_the_same_scores(make, tmp_path):
    scorer, prompts = make(), ["drums", "piano", "drums"]
    expected = scorer(clips(), RATE, prompts)
    for half, tolerance in ((False, 1e-6), (True, 2e-2)):
        scorer.save_pretrained(tmp_path / str(half), half=half)
        loaded = type(scorer).from_pretrained(tmp_path / str(half))
        torch.testing.assert_close(loaded(clips(), RATE, prompts), expected, atol=tolerance, rtol=0)
        assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
        assert all(p.dtype == torch.float32 for p in loaded.parameters())


@pytest.mark.parametrize("make", [adherence, preference])
def test_the_version_changes_with_the_scores(make, tmp_path):
    for name, scorer in {"a": make(), "b": make(), "c": make(scale=2.5)}.items():
        scorer.save_pretrained(tmp_path / name)
    (tmp_path / "b" / "metrics.json").write_text("{}")
    versions = {name: type(make()).from_pretrained(tmp_path / name).version for name in "abc"}
    assert versions["a"] == versions["b"] != versions["c"]


def test_adherence_is_an_affine_cosine():
    scorer = adherence()
    audio = scorer.audio(clips(2))
    text = torch.cat([scorer.text(["slow piano"]), scorer.text(["a"])])
    expected = 2.0 * torch.nn.functional.cosine_similarity(audio, text) - 0.5
    torch.testing.assert_close(scorer(clips(2), RATE, ["slow piano", "a"]), expected)


def test_any_text_and_silence_have_finite_scores():
    prompts = ["", "Ünïcödé 音楽 🎶", "word " * 400, "</s><pad>"]
    silence = torch.zeros(len(prompts), 5120)
    assert adherence()(silence, RATE, prompts).isfinite().all()
    assert preference()(silence, RATE, prompts).isfinite().all()


def test_padding_of_other_texts_changes_nothing():
    scorer = adherence()
    alone, together = scorer.text(["drums"]), scorer.text(["drums", "a long calm piano piece with a bass"])
    torch.testing.assert_close(alone[0], together[0])


def test_other_sample_rates_are_resampled():
    seconds = torch.arange(10_240) / 32_000
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * seconds)[None]
    scorer = adherence(scale=1.0, offset=0.0)
    # Resampling slightly changes the edges of a short clip.
    torch.testing.assert_close(scorer(tone, 32_000, ["a"]), scorer(tone[:, ::2], 16_000, ["a"]), atol=0.02, rtol=0)


@pytest.mark.parametrize("make", [adherence, preference])
def test_bad_input_is_named(make, tmp_path):
    scorer = make()
    with pytest.raises(ValueError, match="3 clips but 2 prompts"):
        scorer(clips(3), RATE, ["a", "b"])
    with pytest.raises(ValueError, match="lacks config.json"):
        type(scorer).from_pretrained(tmp_path)
    other = preference() if isinstance(scorer, AdherenceScorer) else adherence()
    other.save_pretrained(tmp_path)
    shutil.copy(tmp_path / "config.json", tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=f"holds '{other.name}', expected '{scorer.name}'"):
        type(scorer).from_pretrained(tmp_path)


def test_default_sizes():
    words = tokenizer(768)
    count = sum(p.numel() for p in AdherenceScorer(AdherenceConfig(), words).parameters())
    assert count <= 1_100_000
    assert sum(p.numel() for p in PreferenceScorer(PreferenceConfig()).parameters()) <= 500_000
    # Every id of the tokenizer has an embedding.
    assert words.get_vocab_size() <= TextTowerConfig().vocabulary
