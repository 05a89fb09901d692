"""Spread of facets against loops over pairs, and at its limits."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from qd.audio.facets import Facets
from qd.metrics.facets import facet_metrics


def facets(prompts: int = 3, samples: int = 4, seed: int = 0) -> Facets:
    rng = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(prompts, samples, generator=rng, dtype=torch.float64)

    chroma = torch.rand(prompts, samples, 12, generator=rng, dtype=torch.float64)
    return Facets(draw(40, 250), draw(300, 4000), draw(0, 12), draw(-40, 0), chroma)


def constant(**changes: torch.Tensor) -> Facets:
    """One prompt with three equal samples, but for the changes."""
    ones = torch.ones(1, 3)
    return Facets(120 * ones, 1000 * ones, 2 * ones, -20 * ones, torch.ones(1, 3, 12))._replace(**changes)


def fold(octaves: float) -> float:
    return min(abs(octaves - n) for n in range(-9, 10))


def test_equals_loops_over_pairs():
    clips = facets()
    metrics = facet_metrics(clips)
    for prompt in range(3):
        tempo, brightness, rate, loudness = (values[prompt].tolist() for values in clips[:4])
        pairs = list(itertools.combinations(range(4), 2))
        expected = {
            "tempo_spread": [fold(math.log2(tempo[i] / tempo[j])) for i, j in pairs],
            "brightness_spread": [abs(math.log2(brightness[i] / brightness[j])) for i, j in pairs],
            "onset_rate_spread": [abs(rate[i] - rate[j]) for i, j in pairs],
            "loudness_spread": [abs(loudness[i] - loudness[j]) for i, j in pairs],
            "chroma_spread": [
                1 - float(torch.cosine_similarity(clips.chroma[prompt, i], clips.chroma[prompt, j], dim=0))
                for i, j in pairs
            ],
            "tempo": tempo, "brightness": brightness, "onset_rate": rate, "loudness": loudness,
        }  # fmt: skip
        assert metrics.keys() == expected.keys()
        for name, values in expected.items():
            assert float(metrics[name][prompt]) == pytest.approx(sum(values) / len(values), rel=1e-6), name


def test_equal_clips_have_no_spread():
    metrics = facet_metrics(constant())
    assert [value.item() for name, value in metrics.items() if name.endswith("_spread")] == [0.0] * 5


def test_tempo_is_folded_over_octaves_and_brightness_is_not():
    octaves = torch.tensor([[60.0, 120.0, 240.0]])
    metrics = facet_metrics(constant(tempo=octaves, brightness=10 * octaves))
    assert metrics["tempo_spread"].item() == pytest.approx(0.0, abs=1e-6)
    assert metrics["brightness_spread"].item() == pytest.approx(4 / 3)
    half = facet_metrics(constant(tempo=torch.tensor([[100.0, 100.0, 100.0 * 2**0.5]])))
    assert half["tempo_spread"].item() == pytest.approx(1 / 3)


def test_chroma_is_not_rotated():
    chord = torch.zeros(12)
    chord[[0, 4, 7]] = 1.0
    transposed = constant(chroma=torch.stack([chord, chord.roll(1), chord.roll(2)])[None])
    assert facet_metrics(transposed)["chroma_spread"].item() == pytest.approx(1.0)


def test_a_silent_clip_is_half_an_octave_from_any_other_and_nothing_from_silence():
    silent = torch.tensor([[0.0, 0.0, 90.0]])
    chroma = torch.stack([torch.zeros(12), torch.zeros(12), torch.ones(12)])[None]
    metrics = facet_metrics(constant(tempo=silent, brightness=silent, chroma=chroma))
    for name in ("tempo_spread", "brightness_spread", "chroma_spread"):
        assert metrics[name].item() == pytest.approx(1 / 3)  # two pairs of ½ and one of 0
    nothing = facet_metrics(
        constant(tempo=torch.zeros(1, 3), brightness=torch.zeros(1, 3), chroma=torch.zeros(1, 3, 12))
    )
    assert all(value.isfinite().all() for value in nothing.values())
    assert nothing["tempo_spread"].item() == nothing["brightness_spread"].item() == 0.0
