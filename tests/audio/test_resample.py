"""Resampling against pure tones and librosa."""

from __future__ import annotations

import time

import librosa
import numpy as np
import pytest
import torch

from qd.audio.resample import resample


def tone(hertz: float, rate: int, samples: int) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hertz * torch.arange(samples, dtype=torch.float64) / rate).float()[None]


@pytest.mark.parametrize(("source", "target"), [(32_000, 16_000), (16_000, 24_000), (44_100, 16_000)])
def test_a_tone_below_both_nyquist_frequencies_is_preserved(source: int, target: int) -> None:
    samples = source // 4
    out = resample(tone(1000, source, samples), source, target)
    assert out.shape == (1, -(-samples * target // source))
    inner = slice(200, -200)  # without the edges, where the clip begins and ends abruptly
    expected = tone(1000, target, out.shape[1])
    torch.testing.assert_close(out[:, inner], expected[:, inner], atol=2e-3, rtol=0)


@pytest.mark.parametrize(("source", "target"), [(44_101, 16_000), (16_001, 44_100), (11_127, 16_000)])
def test_rates_without_a_common_divisor_need_little_memory_and_time(source: int, target: int) -> None:
    samples, start = source // 4, time.perf_counter()
    both = torch.cat([tone(1000, source, samples), tone(500, source, samples)])
    out = resample(both, source, target)
    assert time.perf_counter() - start < 2 and out.shape == (2, -(-samples * target // source))
    expected = torch.cat([tone(1000, target, out.shape[1]), tone(500, target, out.shape[1])])
    inner = slice(200, -200)
    torch.testing.assert_close(out[:, inner], expected[:, inner], atol=2e-3, rtol=0)


def test_frequencies_above_the_lower_rate_are_removed() -> None:
    out = resample(tone(12_000, 32_000, 8_000), 32_000, 16_000)
    assert out[:, 200:-200].abs().max() < 2e-3


def test_it_agrees_with_librosa() -> None:
    noise = np.random.default_rng(0).standard_normal(8_000)
    band = np.fft.rfft(noise)
    band[len(band) // 3 :] = 0  # below 5.3 kHz of 16 kHz, which both filters pass
    audio = np.fft.irfft(band).astype(np.float32)
    ours = resample(torch.from_numpy(audio)[None], 32_000, 16_000)[0].numpy()
    theirs = librosa.resample(audio, orig_sr=32_000, target_sr=16_000, res_type="polyphase")
    np.testing.assert_allclose(ours[200:-200], theirs[200:-200], atol=5e-3)


def test_equal_rates_change_nothing() -> None:
    audio = tone(440, 16_000, 100)
    assert resample(audio, 16_000, 16_000) is audio
