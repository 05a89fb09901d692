"""The adapter of Audiobox Aesthetics, compared with a stand-in of the package, and with the package if installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qd.audio.resample import resample
from qd.scorers.loading import load_preference
from tests.scorers.stand_ins import TARGETS, AesMultiOutput

RATE = 16_000


def clips(count: int, seconds: float) -> torch.Tensor:
    noise = torch.randn(count, round(seconds * RATE), generator=torch.Generator().manual_seed(0))
    return noise * torch.linspace(0.1, 1, noise.shape[1]) * torch.linspace(0.5, 2, count)[:, None]


@pytest.mark.parametrize("seconds", [0.01, 4.0, 10.0, 14.0, 25.0])
def test_ratings_equal_a_loop_over_clips_windows_and_axes(published, seconds):
    scorer, model = load_preference(f"audiobox:{published / 'audiobox'}"), AesMultiOutput(TARGETS)
    model.load_state_dict(scorer.model.state_dict())
    audio, expected = clips(3, seconds), []
    for clip in audio:
        ratings = []
        for axis in ("CE", "PQ"):
            total = 0.0
            for start in range(0, len(clip), 10 * RATE):
                window = clip[start : start + 10 * RATE]
                wav, mask = torch.zeros(1, 1, 10 * RATE), torch.zeros(1, 1, 10 * RATE, dtype=torch.bool)
                wav[..., : len(window)], mask[..., : len(window)] = window, True
                rating = model({"wav": wav, "mask": mask})[axis].item()
                total += len(window) / len(clip) * (rating * TARGETS[axis]["std"] + TARGETS[axis]["mean"])
            ratings.append(total)
        expected.append(np.mean(ratings))
    scores = scorer(audio, RATE, ["a", "b", "c"])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert scores.std() > 1e-3 and torch.equal(scores, scorer(audio, RATE, [""] * 3))


def test_rate_version_and_state(published):
    scorer = load_preference(f"audiobox:{published / 'audiobox'}")
    assert scorer.name == "audiobox" and scorer.version.startswith("CE+PQ-") and scorer.sample_rate == RATE
    assert not scorer.training and not any(p.requires_grad for p in scorer.parameters())
    audio = clips(2, 1.0)
    torch.testing.assert_close(scorer(audio, 32_000, ["", ""]), scorer(resample(audio, 32_000, RATE), RATE, ["", ""]))
    assert scorer(torch.zeros(1, 1), RATE, [""]).isfinite().all()
    with pytest.raises(ValueError, match="2 clips but 1 prompts"):
        scorer(audio, RATE, [""])


def test_the_missing_extra_is_named(no_packages, tmp_path):
    with pytest.raises(ValueError, match=r"'audiobox_aesthetics'.*pip install -e '\.\[audiobox\]'"):
        load_preference(f"audiobox:{tmp_path}")


@pytest.mark.parametrize("seconds", [0.5, 4.0, 14.0])
def test_the_real_package_rates_like_its_own_predictor(tmp_path, monkeypatch, seconds):
    infer = pytest.importorskip(
        "audiobox_aesthetics.infer", exc_type=ImportError, reason="the extra `audiobox` is not installed"
    )
    from audiobox_aesthetics.model import aes

    small = {"encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}
    small |= {"conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2", "conv_pos": 16}
    for name, value in {**small, "conv_pos_groups": 2}.items():
        monkeypatch.setattr(aes.DEFAULT_AUDIO_CFG, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        aes.AesMultiOutput(nth_layer=3, target_transform=TARGETS).save_pretrained(tmp_path)
    scorer = load_preference(f"audiobox:{tmp_path}")
    monkeypatch.setattr(infer.AesMultiOutput, "from_pretrained", lambda name: scorer.model)
    rows = infer.initialize_predictor().forward(
        [{"path": clip[None], "sample_rate": RATE} for clip in clips(2, seconds)]
    )
    expected = [(row["CE"] + row["PQ"]) / 2 for row in rows]
    np.testing.assert_allclose(scorer(clips(2, seconds), RATE, ["", ""]), expected, rtol=1e-5)
