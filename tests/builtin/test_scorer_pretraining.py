from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qd.builtin import adherence, preference
from qd.builtin.calibration import DEVIATIONS, calibrate, scores
from qd.builtin.clip_bank import ClipBank, build_bank, shuffled_example
from qd.data.world import world
from qd.models.codecs.codec import CodecConfig, FrameCodec
from qd.models.embedders.audio_vit import AudioViTConfig
from qd.scorers.adherence import AdherenceConfig, AdherenceScorer, TextTowerConfig
from qd.scorers.affine import affine
from qd.scorers.preference import PreferenceConfig, PreferenceScorer

SECONDS = 0.32
AUDIO = AudioViTConfig(
    clip_seconds=SECONDS, n_mels=20, layers=1, width=16, heads=2, head_dim=8, mlp_width=32, embedding_width=8
)
TEXT = TextTowerConfig(vocabulary=300, max_tokens=24, layers=1, width=16, heads=2, mlp_width=32, embedding_width=8)


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("codec")
    config = CodecConfig(
        n_mels=20, width=16, latent_width=8, codebook_size=16, encoder_depths=(1, 1), decoder_depths=(1, 1)
    )
    FrameCodec(config).save_pretrained(folder)
    return folder


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


def test_info_nce_equals_a_loop():
    audio, text, temperature = unit(5, 4, 0), unit(5, 4, 1), 0.2
    total = 0.0
    for i in range(5):
        logits = [float(audio[i] @ text[j]) / temperature for j in range(5)]
        total += -math.log(math.exp(logits[i]) / sum(map(math.exp, logits))) / 10
        logits = [float(audio[j] @ text[i]) / temperature for j in range(5)]
        total += -math.log(math.exp(logits[i]) / sum(map(math.exp, logits))) / 10
    loss = adherence.info_nce(audio, text, torch.tensor(math.log(temperature), dtype=torch.float64))
    assert float(loss) == pytest.approx(total, rel=1e-9)


def test_info_nce_limits_the_temperature():
    audio, text = unit(4, 3, 0), unit(4, 3, 1)
    coldest = adherence.info_nce(audio, text, torch.tensor(-math.log(100.0)))
    torch.testing.assert_close(adherence.info_nce(audio, text, torch.tensor(-9.0)), coldest)


def test_ring_pairs_are_balanced_and_distinct():
    first, second = preference.ring_pairs(9, 4)
    assert len(first) == 36 and (np.bincount(np.concatenate([first, second])) == 8).all()
    assert len({frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}) == 36
    with pytest.raises(ValueError, match="expected 1 to 4"):
        preference.ring_pairs(9, 5)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.floats(0.05, 3))
def test_affine_gives_the_requested_statistics(raw, deviation):
    raw = torch.tensor(raw, dtype=torch.float64)
    if float(raw.std()) < 1e-3:
        return
    scale, offset = affine(raw, deviation)
    assert scale > 0
    assert float((scale * raw + offset).mean()) == pytest.approx(0.0, abs=1e-6)
    assert float((scale * raw + offset).std()) == pytest.approx(deviation, rel=1e-6)


def test_a_constant_scorer_cannot_be_calibrated():
    with pytest.raises(ValueError, match="standard deviation 0"):
        affine(torch.ones(5), 1.0)


def test_bank_has_raw_and_codec_clips(tmp_path, codec):
    loaded = FrameCodec.from_pretrained(codec)
    bank = build_bank(tmp_path, "adherence", 4, SECONDS, loaded, adherence._label, workers=0)
    clips = torch.from_numpy(np.stack([world.clip("adherence", i, SECONDS).audio for i in range(4)]))
    reconstructed = loaded.decode(loaded.encode(clips[1::2])).clamp(-1, 1)
    torch.testing.assert_close(bank.audio(slice(0, 4, 2)), clips[::2], atol=2e-5, rtol=0)
    torch.testing.assert_close(bank.audio(slice(1, 4, 2)), reconstructed, atol=1e-4, rtol=0)
    assert [label["description"] for label in bank.labels] == [
        world.clip("adherence", i, SECONDS).description for i in range(4)
    ]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    build_bank(tmp_path, "adherence", 4, SECONDS, loaded, adherence._label, workers=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    build_bank(tmp_path, "adherence", 2, SECONDS, loaded, adherence._label, workers=0)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_each_epoch_of_the_stream_visits_the_bank_in_a_new_order():
    bank = ClipBank(np.zeros((6, 4), np.int16), [{}] * 6)
    seen = [int(shuffled_example(i, bank, seed=3)["clip"]) for i in range(12)]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6)) and seen[:6] != seen[6:]
    assert seen[8] == int(shuffled_example(8, bank, seed=3)["clip"])


def noise_bank(clips: int) -> ClipBank:
    rng = np.random.default_rng(0)
    pcm = (rng.normal(size=(clips, 5120)) * rng.uniform(500, 9000, size=(clips, 1))).astype(np.int16)
    return ClipBank(pcm, [{"description": f"piece number {i}", "stratum": "any"} for i in range(clips)])


@pytest.mark.parametrize("name", ["adherence", "preference"])
def test_calibrated_scores_have_mean_zero_and_the_same_weighted_deviation(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "adherence":
            tokenizer = adherence.train_tokenizer(["piece number 1"], 300).backend_tokenizer
            scorer = AdherenceScorer(AdherenceConfig(AUDIO, TEXT), tokenizer).eval()
        else:
            scorer = PreferenceScorer(PreferenceConfig(AUDIO, 16)).eval()
    bank = noise_bank(40)
    calibrate(scorer, bank)
    after = scores(scorer, bank)
    weight = {"adherence": 5.0, "preference": 1.0}[name]
    assert float(after.mean()) == pytest.approx(0.0, abs=1e-3)
    assert weight * float(after.std()) == pytest.approx(1.0, rel=1e-3)
    assert weight * DEVIATIONS[name] == 1.0


def test_accuracies_of_the_true_utilities_and_of_their_opposite():
    rng = np.random.default_rng(0)
    utilities = rng.normal(scale=2.0, size=200)
    labels = [{"degradation": "clean" if i % 4 < 2 else "hiss", "utility": float(u)} for i, u in enumerate(utilities)]
    bank = ClipBank(np.zeros((200, 1), np.int16), labels)
    truth, opposite = preference.accuracies(utilities, bank, 4000), preference.accuracies(-utilities, bank, 4000)
    for kind in ("all", "clean"):
        for processing in ("raw", "codec"):
            name = f"accuracy, {kind}, {processing}"
            assert truth[name] == pytest.approx(truth[f"Bayes {name}"], abs=0.03)
            assert truth[name] + opposite[name] == pytest.approx(1.0)


class OracleTowers:
    """Clip i and its text share a basis vector, except clip 0, which has the vector of text 2."""

    def text(self, texts):
        return torch.eye(300)[[int(text.split()[-1]) for text in texts]]

    def audio(self, audio, sample_rate):
        rows = audio[:, 0].mul(32_767).round().long()
        return torch.eye(300)[torch.where(rows == 0, 2, rows)]


def test_retrieval_counts_correct_matches():
    pcm = np.arange(128, dtype=np.int16)[:, None].repeat(2, axis=1)
    labels = [{"description": f"piece {i}", "stratum": "any"} for i in range(128)]
    recall = adherence.retrieval(OracleTowers(), ClipBank(pcm, labels))
    assert recall["recall@1 of 64, text found, codec"] == recall["recall@1 of 64, clip found, codec"] == 1.0
    assert recall["recall@1 of 64, text found, raw"] == pytest.approx(63 / 64)
    # text 0 matches no clip, and clips 0 and 2 tie for text 2
    assert recall["recall@1 of 64, clip found, raw"] == pytest.approx(62 / 64)


def test_preference_stage_writes_an_asset(tmp_path, codec):
    config = preference.PreferenceStageConfig(
        codec=str(codec), seconds=SECONDS, clips=16, validation_clips=16, calibration_clips=8, comparisons=2,
        validation_comparisons=50, batch_size=8, max_steps=2, warmup_steps=1, workers=0, precision="32-true",
        model=PreferenceConfig(AUDIO, 16),
    )  # fmt: skip
    asset = preference.run(config, tmp_path)
    scorer = PreferenceScorer.from_pretrained(asset)
    assert scorer(torch.zeros(1, 5120), 16_000, ["x"]).isfinite().all()
    metrics = json.loads((asset / "metrics.json").read_text())["metrics"]
    assert metrics["scale"] == scorer.config.scale and 0 <= metrics["accuracy, all, codec"] <= 1
    assert "Bayes accuracy" in (asset / "README.md").read_text()


@pytest.mark.slow
def test_adherence_stage_writes_an_asset(tmp_path, codec):
    config = adherence.AdherenceStageConfig(
        codec=str(codec), seconds=SECONDS, clips=16, validation_clips=128, calibration_clips=8, batch_size=8,
        max_steps=2, warmup_steps=1, workers=0, precision="32-true", model=AdherenceConfig(AUDIO, TEXT),
    )  # fmt: skip
    asset = adherence.run(config, tmp_path)
    scorer = AdherenceScorer.from_pretrained(asset)
    assert scorer(torch.zeros(1, 5120), 16_000, ["x"]).isfinite().all()
    metrics = json.loads((asset / "metrics.json").read_text())["metrics"]
    assert 0 <= metrics["recall@1 of 64, text found, codec"] <= 1


def test_retrieval_is_measured_for_each_stratum_of_the_descriptions():
    pcm = np.arange(256, dtype=np.int16)[:, None].repeat(2, axis=1)
    labels = [{"description": f"piece {i}", "stratum": "open" if i < 128 else "specific"} for i in range(256)]
    recall = adherence.retrieval(OracleTowers(), ClipBank(pcm, labels))
    assert recall["recall@1 of 64, text found, raw, specific"] == 1.0
    # text 0 matches no clip, see above, and it is open
    assert recall["recall@1 of 64, text found, raw, open"] == pytest.approx(63 / 64)
