from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from qd.audio.resample import resample
from qd.scorers.clap import TEXT_TOKENS
from qd.scorers.loading import load_adherence

RATE = 48_000
PROMPTS = ["a slow waltz", "techno", "a slow waltz"]


def clips(count: int, samples: int = 60_000) -> torch.Tensor:
    return 0.2 * torch.randn(count, samples, generator=torch.Generator().manual_seed(1))


def test_the_score_equals_the_librarys_cosine(tiny_clap):
    scorer = load_adherence(f"clap:{tiny_clap}")
    model, extractor = ClapModel.from_pretrained(tiny_clap), ClapFeatureExtractor.from_pretrained(tiny_clap)
    tokenizer, audio = AutoTokenizer.from_pretrained(tiny_clap), clips(3)
    features = extractor(list(audio.numpy()), sampling_rate=RATE, return_tensors="pt")["input_features"]
    with torch.no_grad():
        output = model(input_features=features, **tokenizer(PROMPTS, padding=True, return_tensors="pt"))
    scores = scorer(audio, RATE, PROMPTS)
    torch.testing.assert_close(scores, (output.audio_embeds * output.text_embeds).sum(dim=1), atol=1e-3, rtol=0)
    assert scores.std() > 0.01 and scores.dtype == torch.float32


def test_each_prompt_is_encoded_once_per_call_independently_of_others(tiny_clap, monkeypatch):
    scorer = load_adherence(f"clap:{tiny_clap}")
    together, encoded = scorer(clips(3), RATE, PROMPTS), []
    encode = scorer.text.forward
    monkeypatch.setattr(scorer.text, "forward", lambda texts: encoded.append(texts) or encode(texts))
    for row, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(scorer(clips(3)[[row]], RATE, [prompt])[0], together[row], atol=1e-5, rtol=0)
    scorer(clips(3), RATE, PROMPTS)
    assert encoded[-1] == ["a slow waltz", "techno"]


def test_other_rates_are_resampled(tiny_clap):
    scorer, audio = load_adherence(f"clap:{tiny_clap}"), clips(2, 40_000)
    expected = scorer(resample(audio, 32_000, RATE), RATE, PROMPTS[:2])
    torch.testing.assert_close(scorer(audio, 32_000, PROMPTS[:2]), expected)
    assert scorer.sample_rate == RATE


def test_any_text_and_silence_have_finite_scores_and_long_texts_are_cut(tiny_clap):
    scorer = load_adherence(f"clap:{tiny_clap}")
    letters = "x" * (TEXT_TOKENS - 2)  # plus two special tokens; the tokenizer has one token per letter
    scores = scorer(torch.zeros(4, 1000), RATE, ["", "日本 🎶", letters, letters + "and more of it"])
    assert scores.isfinite().all() and scores[2] == scores[3] != scores[0]


def test_the_version_depends_on_the_weights(tiny_clap, fusing_clap, tmp_path):
    ClapModel.from_pretrained(tiny_clap).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_clap).save_pretrained(tmp_path)
    ClapFeatureExtractor.from_pretrained(tiny_clap).save_pretrained(tmp_path)
    versions = [load_adherence(f"clap:{folder}").version for folder in (tiny_clap, tmp_path, fusing_clap)]
    assert versions[0] == versions[1] != versions[2]
    assert load_adherence(f"clap:{tiny_clap}").name == "clap"


def test_it_is_frozen_in_eval_mode_and_refuses_a_wrong_number_of_prompts(tiny_clap):
    scorer = load_adherence(f"clap:{tiny_clap}")
    assert not scorer.training and not any(p.requires_grad for p in scorer.parameters())
    with pytest.raises(ValueError, match="2 clips but 3 prompts"):
        scorer(clips(2), RATE, PROMPTS)
