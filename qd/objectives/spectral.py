"""Multi-scale spectral loss: what a codec's reconstruction is trained and judged by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FFT_SIZES = (2048, 512, 128)
"""Window lengths in samples: at 16 kHz from 128 ms, which separates harmonics, to 8 ms, which places onsets."""

LOG_FLOOR = 1e-4
"""Added before the logarithm: magnitudes below −80 dB of full scale hardly count."""


def magnitude_spectrogram(audio: Tensor, n_fft: int) -> Tensor:
    """|STFT| with a Hann window, hop n_fft/4, scaled so that a full-scale sine has magnitude 1.

    Shapes: audio ``(batch, samples)`` → ``(batch, n_fft/2 + 1, frames)``. The gradient is finite at silence.
    """
    window = torch.hann_window(n_fft, device=audio.device)
    spectrum = torch.stft(audio, n_fft, n_fft // 4, window=window * (2 / window.sum()), return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp_min(1e-14).sqrt()


def multi_scale_spectral_loss(predicted: Tensor, target: Tensor, fft_sizes: Sequence[int] = FFT_SIZES) -> Tensor:
    """Mean over FFT sizes of log-magnitude L1 and spectral convergence.

    ``L = 1/|F| Σ_n [ mean |log(S_n(x) + ε) − log(S_n(y) + ε)| + ‖S_n(x) − S_n(y)‖₂ / (‖S_n(y)‖₂ + ε) ]`` with
    ``S_n`` the magnitude spectrogram of FFT size n, x predicted, y target, ε = 1e-4, natural logarithms, norms
    over the whole batch. Computed in float32, also under autocast.

    Args:
        predicted: ``(batch, samples)``.
        target: ``(batch, samples)``.
        fft_sizes: window lengths in samples.

    Raises:
        ValueError: the shapes differ, or the audio is too short for the longest window.
    """
    if predicted.shape != target.shape or predicted.ndim != 2:
        raise ValueError(
            f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)}: "
            "expected two equal shapes (batch, samples); crop the longer one"
        )
    if predicted.shape[1] <= max(fft_sizes) // 2:
        raise ValueError(
            f"audio of {predicted.shape[1]} samples: an FFT size of {max(fft_sizes)} needs more than "
            f"{max(fft_sizes) // 2}; pass longer audio or smaller fft_sizes"
        )
    with torch.autocast(predicted.device.type, enabled=False):
        scales = [_spectral_distance(predicted.float(), target.float(), n_fft) for n_fft in fft_sizes]
    return torch.stack(scales).mean()


def _spectral_distance(predicted: Tensor, target: Tensor, n_fft: int) -> Tensor:
    predicted, target = magnitude_spectrogram(predicted, n_fft), magnitude_spectrogram(target, n_fft)
    log_distance = ((predicted + LOG_FLOOR).log() - (target + LOG_FLOOR).log()).abs().mean()
    convergence = torch.linalg.vector_norm(predicted - target) / (torch.linalg.vector_norm(target) + LOG_FLOOR)
    return log_distance + convergence
