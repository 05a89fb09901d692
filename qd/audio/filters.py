"""Filters with their own parameters for each clip: low-pass, high-pass, equaliser and room, by FFT.

Every filter multiplies the spectrum of a clip, so it works on whole batches on any device, without a loop over samples.
Clips are padded with silence, so that nothing wraps around. The first three have zero phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.fft import next_fast_len
from torch import Tensor

RINGING_SECONDS = 0.25
"""Silence after each clip, for the filters' ringing; a high-pass at 50 Hz of 48 dB an octave needs 0.1 s."""
LOWEST_KNOT_HZ = 62.5
"""Frequency of the equaliser's lowest knot; below it the gain is constant."""
DECAY = math.log(1000.0)
"""Exponent of the amplitude after one reverberation time: 60 dB."""


def low_pass(audio: Tensor, hertz: Tensor, slope_db: Tensor, sample_rate: int) -> Tensor:
    """Applies the gain of a Butterworth low-pass, 1 / √(1 + (f / f_c)^2n), with n = slope / 6.02 dB.

    Args:
        audio: Clips, ``(batch, samples)``.
        hertz: Cut-off frequency f_c of each clip (−3 dB), ``(batch,)``.
        slope_db: Slope above it in dB an octave, ``(batch,)``.
        sample_rate: Sample rate in Hz.
    """
    return _filter(audio, sample_rate, lambda f: _butterworth(f, hertz, slope_db))


def high_pass(audio: Tensor, hertz: Tensor, slope_db: Tensor, sample_rate: int) -> Tensor:
    """Applies the gain of a Butterworth high-pass, 1 / √(1 + (f_c / f)^2n); arguments as in :func:`low_pass`."""
    return _filter(audio, sample_rate, lambda f: _butterworth(f, hertz, -slope_db))


def equalise(audio: Tensor, gain_db: Tensor, sample_rate: int) -> Tensor:
    """Applies a smooth gain curve: cosine interpolation over octaves between knots.

    Args:
        audio: Clips, ``(batch, samples)``.
        gain_db: Gain in dB at 62.5, 125, 250 … Hz, ``(batch, knots)``, two knots or more; constant beyond both ends.
        sample_rate: Sample rate in Hz.
    """
    last = gain_db.shape[1] - 1

    def gain(frequency: Tensor) -> Tensor:
        octave = (frequency / LOWEST_KNOT_HZ).clamp_min(1.0).log2().clamp(max=float(last))
        before = octave.long().clamp(max=last - 1)
        share = (1 - torch.cos(torch.pi * (octave - before))) / 2
        low, high = gain_db[:, before], gain_db[:, before + 1]
        return 10.0 ** ((low + share * (high - low)) / 20.0)

    return _filter(audio, sample_rate, gain)


def knots(sample_rate: int) -> int:
    """Returns the number of the equaliser's knots, so that the last is at or above half the sample rate."""
    return 1 + max(1, math.ceil(math.log2(sample_rate / 2 / LOWEST_KNOT_HZ)))


def reverberate(audio: Tensor, seconds: Tensor, level_db: Tensor, noise: Tensor, sample_rate: int) -> Tensor:
    """Adds the sound of a room to each clip: the clip convolved with decaying noise of unit energy.

    Each clip starts in a silent room. The room is (noise · 10^(−3 t / T)), whose level falls by 60 dB in T.

    Args:
        audio: Clips, ``(batch, samples)``.
        seconds: Reverberation time T of each clip, ``(batch,)``.
        level_db: Energy of the room relative to the direct sound in dB, ``(batch,)``.
        noise: White noise, ``(batch, taps)``; a length of the longest reverberation time is enough.
        sample_rate: Sample rate in Hz.
    """
    time = torch.arange(noise.shape[1], device=audio.device) / sample_rate
    room = noise * torch.exp(-DECAY * time / seconds[:, None])
    room = room / room.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12) * 10.0 ** (level_db[:, None] / 20.0)
    size = next_fast_len(audio.shape[1] + noise.shape[1], real=True)
    spectrum = torch.fft.rfft(audio, size) * torch.fft.rfft(room, size)
    return audio + torch.fft.irfft(spectrum, size)[:, : audio.shape[1]]


def _filter(audio: Tensor, sample_rate: int, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiplies the spectra by ``gain(frequencies)``, ``(batch, bins)``."""
    size = next_fast_len(audio.shape[1] + round(RINGING_SECONDS * sample_rate), real=True)
    frequencies = torch.arange(size // 2 + 1, device=audio.device) * (sample_rate / size)
    return torch.fft.irfft(torch.fft.rfft(audio, size) * gain(frequencies), size)[:, : audio.shape[1]]


def _butterworth(frequencies: Tensor, hertz: Tensor, slope_db: Tensor) -> Tensor:
    """Returns the gain ``(batch, bins)``; a negative slope is that of a high-pass."""
    octaves = (frequencies.clamp_min(1e-3) / hertz[:, None]).log2()
    return (1.0 + 10.0 ** (octaves * slope_db[:, None] / 10.0)).rsqrt()
