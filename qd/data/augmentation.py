"""Changes of the sound that an embedding should not hear, on whole batches and on the device of the audio."""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(audio: Tensor, snr_db: tuple[float, float], generator: torch.Generator) -> Tensor:
    """White noise at a signal-to-noise ratio drawn uniformly in decibels, one for each clip; silence stays silent.

    Args:
        audio: ``(batch, samples)``.
        snr_db: lowest and highest ratio of mean powers, in dB.
        generator: on the audio's device.
    """
    noise = torch.randn(audio.shape, generator=generator, device=audio.device)
    level = audio.square().mean(dim=1, keepdim=True).sqrt()
    return audio + noise * level * _amplitude(-_uniform(audio, snr_db, generator))


def change_gain(audio: Tensor, gain_db: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Multiplies each clip by a gain drawn uniformly in decibels. Shapes as in :func:`add_noise`."""
    return audio * _amplitude(_uniform(audio, gain_db, generator))


def _uniform(audio: Tensor, bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    """One number a clip, ``(batch, 1)``."""
    low, high = bounds
    return low + (high - low) * torch.rand(audio.shape[0], 1, generator=generator, device=audio.device)


def _amplitude(decibels: Tensor) -> Tensor:
    return 10.0 ** (decibels / 20.0)
