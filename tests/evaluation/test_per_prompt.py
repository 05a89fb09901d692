"""Metrics of each prompt from scores, embeddings and facets, against loops over its samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qd.audio.facets import RATE, clip_facets
from qd.evaluation.columns import CLEAN, EFFECTIVE, FACETS, METRICS
from qd.evaluation.per_prompt import SCORES, facet_rows, per_prompt_metrics
from qd.metrics.facets import facet_metrics
from qd.scorers.protocol import Thresholds

PROMPTS, SAMPLES = 3, 4


@pytest.fixture
def samples() -> dict[str, torch.Tensor]:
    """Each prompt has one sample more above 0 than the prompt before."""
    rng = torch.Generator().manual_seed(0)
    values = {name: torch.rand(PROMPTS, SAMPLES, generator=rng) for name in SCORES}
    good = torch.arange(SAMPLES) <= torch.arange(PROMPTS)[:, None]
    values["preference"] = torch.where(good, values["preference"], -values["preference"])
    values["quality"] = torch.where(good.flip(1), values["quality"], -values["quality"])
    for name in ("embedding", "heldout_embedding"):
        values[name] = torch.randn(PROMPTS, SAMPLES, 5, generator=rng)
    return values


def mean_dissimilarity(vectors: list[torch.Tensor]) -> float:
    pairs = [1 - float(torch.cosine_similarity(a, b, dim=0)) for a in vectors for b in vectors if a is not b]
    return float(np.mean(pairs)) if pairs else np.nan


@pytest.mark.parametrize(("name", "score"), [("clean", "preference"), ("effective", "quality")])
def test_good_clips_against_a_loop(samples, name, score):
    metrics = per_prompt_metrics(samples, Thresholds())
    assert list(metrics) == [*SCORES, "diversity", "diversity_heldout", "vendi", *CLEAN, *EFFECTIVE]
    assert set(METRICS) < set(metrics)
    for prompt in range(PROMPTS):
        good = [i for i in range(SAMPLES) if samples[score][prompt, i] >= 0]
        assert len(good) == prompt + 1
        assert metrics[f"{name}_share"][prompt] == (prompt + 1) / SAMPLES
        assert metrics[f"{name}_left_out"][prompt] == float(prompt == 0)
        for ending, embedding in (("", "embedding"), ("_heldout", "heldout_embedding")):
            expected = mean_dissimilarity([samples[embedding][prompt, i] for i in good])
            assert metrics[f"diversity_{name}{ending}"][prompt] == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_thresholds_move_the_clips_that_count(samples):
    metrics = per_prompt_metrics(samples, Thresholds(clean=-9.0, quality=9.0))
    np.testing.assert_allclose(metrics["diversity_clean"], metrics["diversity"])
    assert metrics["clean_share"].tolist() == [1.0] * 3 and metrics["effective_left_out"].tolist() == [1.0] * 3
    assert np.isnan(metrics["diversity_effective"]).all()
    assert Thresholds(clean=0.5).unusual == ["clean>=0.5"] and Thresholds().unusual == []


def test_facets_of_audio_reach_their_metrics(samples):
    time = torch.arange(RATE) / RATE
    pitches = 110.0 * 2 ** (torch.arange(PROMPTS * SAMPLES) / 12)
    audio = 0.3 * torch.sin(2 * torch.pi * pitches[:, None] * time)
    audio[0] = 0.0
    rows = facet_rows(audio)
    assert rows.shape == (PROMPTS * SAMPLES, 16) and rows.dtype == torch.float32
    for row, clip in zip(rows, audio, strict=True):
        expected = clip_facets(clip.numpy())
        np.testing.assert_allclose(row, [*expected[:4], *expected.chroma], rtol=1e-5)
    metrics = per_prompt_metrics({**samples, "facets": rows.view(PROMPTS, SAMPLES, 16)}, Thresholds())
    assert set(metrics) == {*METRICS, *CLEAN, *EFFECTIVE, *FACETS}
    table = [clip_facets(clip.numpy()) for clip in audio[4:8]]
    assert metrics["brightness"][1] == pytest.approx(np.mean([one.brightness for one in table]), rel=1e-5)
    one = [torch.tensor(np.array([values]), dtype=torch.float64) for values in zip(*table, strict=True)]
    expected = facet_metrics(type(table[0])(*one))
    assert metrics["chroma_spread"][1] == pytest.approx(float(expected["chroma_spread"]), rel=1e-5)
    assert all(np.isfinite(metrics[name]).all() for name in FACETS)
