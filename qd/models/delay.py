"""The delay pattern of MusicGen: codebook q runs q steps behind the first one (Copet et al. 2023, "delay").

With two audio channels, the codebooks of left and right are interleaved, and the two codebooks of a pair share a delay.
"""

from __future__ import annotations

import torch
from torch import Tensor


def delayed_steps(codebooks: int, frames: int, channels: int = 1) -> int:
    """Returns the length of the delayed codes: ``T + Q / channels - 1``."""
    return frames + codebooks // channels - 1


def delay_mask(codebooks: int, frames: int, channels: int = 1, device: torch.device | None = None) -> Tensor:
    """Marks the delayed positions that hold a real token.

    Args:
        codebooks: Number of codebooks Q over all channels.
        frames: Number of codec frames T.
        channels: Audio channels of the checkpoint, 1 or 2.
        device: Device of the mask.

    Returns:
        Boolean mask ``(codebooks, steps)`` with ``steps = T + Q / channels - 1``; row q is True for the T steps
        that start at its delay ``q // channels``.

    Raises:
        ValueError: ``frames`` is below 1, or ``codebooks`` is not a positive multiple of ``channels``.
    """
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}; request a longer clip.")
    if codebooks < 1 or codebooks % channels:
        raise ValueError(f"codebooks must be a positive multiple of channels={channels}, got {codebooks}.")
    delays = _delays(codebooks, channels, device)
    steps = torch.arange(delayed_steps(codebooks, frames, channels), device=device)
    return (steps >= delays) & (steps < delays + frames)


def delay(codes: Tensor, pad: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Delays codes: ``delayed[b, q, s] = codes[b, q, s - q]`` where ``0 <= s - q < T``, else ``pad``.

    Args:
        codes: ``(batch, codebooks, frames)``.
        pad: Pad token; every MusicGen checkpoint uses the codebook size.
        channels: Audio channels of the checkpoint; with 2 channels the delay of codebook q is ``q // 2``.

    Returns:
        ``delayed`` ``(batch, codebooks, steps)`` and its ``mask`` ``(codebooks, steps)``, see ``delay_mask``.
    """
    batch, codebooks, frames = codes.shape
    mask = delay_mask(codebooks, frames, channels, codes.device)
    delayed = codes.new_full((batch, *mask.shape), pad)
    return delayed.scatter_(2, _steps(codes, channels), codes), mask


def undelay(delayed: Tensor, frames: int, channels: int = 1) -> Tensor:
    """Undoes ``delay``: ``(batch, codebooks, steps)`` → ``(batch, codebooks, frames)``.

    Raises:
        ValueError: the number of steps does not match ``frames``.
    """
    codebooks, steps = delayed.shape[1:]
    expected = delay_mask(codebooks, frames, channels, delayed.device).shape[1]
    if steps != expected:
        raise ValueError(f"{frames} frames of {codebooks} codebooks take {expected} delayed steps, got {steps}.")
    return delayed.gather(2, _steps(delayed[..., :frames], channels))


def _delays(codebooks: int, channels: int, device: torch.device | None) -> Tensor:
    """Returns the delay of each codebook, ``(codebooks, 1)``, in steps."""
    return torch.arange(codebooks, device=device)[:, None] // channels


def _steps(codes: Tensor, channels: int) -> Tensor:
    """Returns the delayed step of each code, ``(batch, codebooks, frames)``.

    Step numbers instead of a mask: to index with a mask, a GPU must count its true entries first, which blocks the
    program.
    """
    _, codebooks, frames = codes.shape
    steps = torch.arange(frames, device=codes.device) + _delays(codebooks, channels, codes.device)
    return steps.expand_as(codes)
