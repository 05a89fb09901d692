"""Band-limited resampling, because a codec and an embedder may have different sample rates."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

ZERO_CROSSINGS = 16
ROLLOFF = 0.95
"""Cut-off frequency as a share of the lower Nyquist frequency."""


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
    kernel, width = _kernel(source, target)
    padded = F.pad(audio[:, None], (width, width + source))
    phases = F.conv1d(padded, kernel.to(audio), stride=source)  # (batch, target, blocks)
    return phases.transpose(1, 2).flatten(1)[:, : math.ceil(audio.shape[1] * target / source)]
