"""Filters: gains against SciPy's and by sine waves, decay of a room, separate parameters, silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import butter, fftconvolve, sosfreqz
from torch import Tensor

from qd.audio.filters import equalise, high_pass, knots, low_pass, reverberate

RATE, SAMPLES = 16_000, 16_000
FREQUENCIES = np.array([100.0, 250.0, 500.0, 1000.0, 1900.0, 2400.0, 4000.0, 7000.0])


def sines() -> Tensor:
    """One clip for each frequency."""
    return torch.from_numpy(np.sin(2 * np.pi * FREQUENCIES[:, None] * np.arange(SAMPLES) / RATE)).float()


def gains_db(changed: Tensor) -> np.ndarray:
    """Gain of each sine, from the middle of the clips: the ends ring."""
    middle = slice(SAMPLES // 4, 3 * SAMPLES // 4)
    ratio = changed[:, middle].double().square().mean(1) / sines()[:, middle].double().square().mean(1)
    return 10 * np.log10(ratio.numpy())


def each(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("order", [2, 4, 8])
@pytest.mark.parametrize(("kind", "change"), [("lowpass", low_pass), ("highpass", high_pass)])
def test_gains_are_those_of_a_butterworth_filter(kind, change, order):
    cutoff, slope = torch.full((8,), 2000.0), torch.full((8,), order * 20 * np.log10(2))
    _, response = sosfreqz(butter(order, 2000.0, kind, output="sos", fs=1e6), FREQUENCIES, fs=1e6)  # nearly analogue
    expected = 20 * np.log10(np.abs(response))
    measured = gains_db(change(sines(), cutoff, slope, RATE))
    audible = expected > -60
    np.testing.assert_allclose(measured[audible], expected[audible], atol=0.1)
    assert (measured[~audible] < -58).all()


def test_equaliser_has_its_gains_at_its_knots_and_is_smooth_between_them():
    gain = each(6, -3, 3, 0, 9, -6, -12, -12).repeat(8, 1)  # at 62.5, 125, 250, 500 … Hz
    measured = gains_db(equalise(sines(), gain, RATE))
    np.testing.assert_allclose(measured[[1, 2, 3, 6]], [3, 0, 9, -12], atol=0.05)
    np.testing.assert_allclose(measured[7], -12, atol=0.05)
    assert -6 < measured[4] < -5 and -12 < measured[5] < -6
    assert knots(RATE) == gain.shape[1]


def decay_seconds(response: np.ndarray) -> float:
    """Reverberation time by Schroeder's backward integration, from the slope between −5 and −35 dB."""
    energy = np.cumsum(response[::-1] ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0])
    inside = (level < -5) & (level > -35)
    slope = np.polyfit(np.flatnonzero(inside) / RATE, level[inside], 1)[0]
    return -60 / slope


def test_room_decays_by_sixty_decibels_in_its_time_and_has_its_level():
    click = torch.zeros(3, 2 * SAMPLES)
    click[:, 0] = 1.0
    noise = torch.randn(3, 2 * SAMPLES, generator=torch.Generator().manual_seed(0))
    room = (reverberate(click, each(0.3, 0.6, 1.2), each(-10, 0, 3), noise, RATE) - click).numpy()
    assert [decay_seconds(response) for response in room] == pytest.approx([0.3, 0.6, 1.2], rel=0.07)
    np.testing.assert_allclose(10 * np.log10((room**2).sum(1)), [-10, 0, 3], atol=0.05)


def test_room_is_a_convolution():
    audio, noise = torch.randn(2, 1, 3000, generator=torch.Generator().manual_seed(0))
    tail = noise[0].double().numpy() * 10 ** (-3 * np.arange(3000) / RATE / 0.1)
    tail /= np.sqrt((tail**2).sum())
    expected = audio[0].numpy() + fftconvolve(audio[0].double().numpy(), tail)[:3000]
    np.testing.assert_allclose(reverberate(audio, each(0.1), each(0.0), noise, RATE)[0], expected, atol=1e-4)


CHANGES = {
    "low-pass": lambda audio: low_pass(audio, each(500, 3000), each(12, 48), RATE),
    "high-pass": lambda audio: high_pass(audio, each(500, 3000), each(12, 48), RATE),
    "equaliser": lambda audio: equalise(audio, torch.arange(16.0).view(2, 8), RATE),
    "room": lambda audio: reverberate(audio, each(0.1, 0.4), each(-6, 0), NOISE, RATE),
}
NOISE = torch.randn(2, 6400, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", CHANGES)
def test_a_clip_depends_on_no_other_clip_and_nothing_wraps_around(kind):
    change, audio = CHANGES[kind], torch.randn(2, 5000, generator=torch.Generator().manual_seed(2))
    both = change(audio)
    assert both.shape == audio.shape and both.dtype == torch.float32
    alone = change(torch.stack([audio[0], torch.zeros(5000)]))
    torch.testing.assert_close(both[0], alone[0], atol=1e-6, rtol=0)
    assert torch.equal(alone[1], torch.zeros(5000))
    end = torch.zeros(2, 5000)
    end[:, -1] = 1.0
    assert change(end)[:, :500].abs().max() < 1e-3
