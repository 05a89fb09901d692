"""Band-limited resampling, because a codec and an embedder may have different sample rates."""

from __future__ import annotations

import math
from functools import lru_cache

import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

ZERO_CROSSINGS = 16
ROLLOFF = 0.95
"""Cut-off frequency as a share of the lower Nyquist frequency."""

MAX_KERNEL = 2**20
"""Most elements of a kernel, 4 MiB. Usual rates from 8,000 to 192,000 Hz need up to 0.6 million; 44,101 to 16,000 Hz
would need 0.7 billion."""


@lru_cache(maxsize=8)
def _kernel(source: int, target: int) -> tuple[Tensor, int]:
    """Returns a Hann-windowed sinc for each ``target`` phase, ``(target, 1, taps)``, and its half width in samples."""
    cutoff = ROLLOFF * min(source, target)
    width = math.ceil(ZERO_CROSSINGS * source / cutoff)
    taps = torch.arange(-width, width + source, dtype=torch.float64) / source
    phases = torch.arange(target, dtype=torch.float64)[:, None] / target
    t = ((taps - phases) * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(t * math.pi / ZERO_CROSSINGS / 2).square()
    return (torch.sinc(t) * window * cutoff / source)[:, None].float(), width


def resample(audio: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Resamples audio by polyphase windowed-sinc interpolation, the method of torchaudio's ``resample``.

    The size of its kernel is the product of both rates over their squared greatest common divisor. Rates with a small
    divisor would need a kernel larger than :data:`MAX_KERNEL`; soxr resamples those on the CPU, without gradients.

    Args:
        audio: Clips, ``(batch, samples)``.
        source_rate: Sample rate of the clips in Hz.
        target_rate: Sample rate of the result in Hz.

    Returns:
        Clips, ``(batch, ceil(samples · target_rate / source_rate))``.
    """
    if source_rate == target_rate:
        return audio
    divisor = math.gcd(source_rate, target_rate)
    source, target = source_rate // divisor, target_rate // divisor
    length = math.ceil(audio.shape[1] * target / source)
    if source * target > MAX_KERNEL:
        return _resample_soxr(audio, source_rate, target_rate, length)
    kernel, width = _kernel(source, target)
    padded = F.pad(audio[:, None], (width, width + source))
    phases = F.conv1d(padded, kernel.to(audio), stride=source)  # (batch, target, blocks)
    return phases.transpose(1, 2).flatten(1)[:, :length]


def _resample_soxr(audio: Tensor, source_rate: int, target_rate: int, length: int) -> Tensor:
    resampled = soxr.resample(audio.detach().float().cpu().numpy().T, source_rate, target_rate)
    resampled = torch.from_numpy(resampled.T)[:, :length]
    return F.pad(resampled, (0, length - resampled.shape[1])).to(audio)
