"""Multi-scale spectral loss, which trains and evaluates the reconstruction of a codec."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FFT_SIZES = (2048, 512, 128)
"""Window lengths in samples. At 16 kHz: 128 ms, which resolves harmonics, to 8 ms, which resolves onsets."""

LOG_FLOOR = 1e-4
"""Offset before the logarithm, so that magnitudes below −80 dB of full scale have little weight."""


def magnitude_spectrogram(audio: Tensor, n_fft: int) -> Tensor:
    """Returns |STFT| with a Hann window and hop n_fft/4, scaled so that a full-scale sine has magnitude 1.

    The gradient is finite at silence.

    Args:
        audio: Clips, ``(batch, samples)``.
        n_fft: Window length in samples.

    Returns:
        Magnitudes, ``(batch, n_fft/2 + 1, frames)``.
    """
    window = torch.hann_window(n_fft, device=audio.device)
    spectrum = torch.stft(audio, n_fft, n_fft // 4, window=window * (2 / window.sum()), return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp_min(1e-14).sqrt()


def multi_scale_spectral_loss(predicted: Tensor, target: Tensor, fft_sizes: Sequence[int] = FFT_SIZES) -> Tensor:
    """Returns the mean over FFT sizes of the L1 distance of log-magnitudes plus the spectral convergence.

    ``L = 1/|F| Σ_n [ mean |log(S_n(x) + ε) − log(S_n(y) + ε)| + ‖S_n(x) − S_n(y)‖₂ / (‖S_n(y)‖₂ + ε) ]`` with
    ``S_n`` the magnitude spectrogram of FFT size n, x predicted, y target, ε = 1e-4, natural logarithms, and norms
    over the whole batch. Computed in float32, also under autocast.

    Args:
        predicted: Reconstructed clips, ``(batch, samples)``.
        target: Original clips, ``(batch, samples)``.
        fft_sizes: Window lengths in samples.

    Returns:
        A scalar ≥ 0, in float32.

    Raises:
        ValueError: If the shapes differ, or the audio is too short for the longest window.
    """
    if predicted.shape != target.shape or predicted.ndim != 2:
        raise ValueError(
            f"predicted is {tuple(predicted.shape)} and target {tuple(target.shape)}: "
            "expected equal shapes (batch, samples). Crop the longer one."
        )
    if predicted.shape[1] <= max(fft_sizes) // 2:
        raise ValueError(
            f"audio of {predicted.shape[1]} samples: an FFT size of {max(fft_sizes)} needs more than "
            f"{max(fft_sizes) // 2}. Pass longer audio or smaller fft_sizes."
        )
    with torch.autocast(predicted.device.type, enabled=False):
        scales = [_spectral_distance(predicted.float(), target.float(), n_fft) for n_fft in fft_sizes]
    return torch.stack(scales).mean()


def _spectral_distance(predicted: Tensor, target: Tensor, n_fft: int) -> Tensor:
    predicted, target = magnitude_spectrogram(predicted, n_fft), magnitude_spectrogram(target, n_fft)
    log_distance = ((predicted + LOG_FLOOR).log() - (target + LOG_FLOOR).log()).abs().mean()
    convergence = torch.linalg.vector_norm(predicted - target) / (torch.linalg.vector_norm(target) + LOG_FLOOR)
    return log_distance + convergence
