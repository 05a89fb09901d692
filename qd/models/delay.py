"""The delay pattern of MusicGen: codebook q runs q steps behind the first one (Copet et al. 2023, "delay").

With two audio channels the codebooks of left and right are interleaved, and both of a pair share one delay.
"""

from __future__ import annotations

import torch
from torch import Tensor


def delayed_steps(codebooks: int, frames: int, channels: int = 1) -> int:
    """Length of the delayed codes: ``T + Q / channels - 1``."""
    return frames + codebooks // channels - 1


def delay_mask(codebooks: int, frames: int, channels: int = 1, device: torch.device | None = None) -> Tensor:
    """Which delayed positions hold a real token.

    Args:
        codebooks: number of codebooks Q, both channels together.
        frames: number of codec frames T.
        channels: audio channels of the checkpoint, 1 or 2.

    Returns:
        Boolean mask ``(codebooks, steps)`` with ``steps = T + Q / channels - 1``; row q is True for T steps
        from its delay ``q // channels`` on.

    Raises:
        ValueError: if ``frames`` is below 1, or ``codebooks`` is no positive multiple of ``channels``.
    """
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}; ask for a longer clip.")
    if codebooks < 1 or codebooks % channels:
        raise ValueError(f"codebooks must be a positive multiple of channels={channels}, got {codebooks}.")
    delays = _delays(codebooks, channels, device)
    steps = torch.arange(delayed_steps(codebooks, frames, channels), device=device)
    return (steps >= delays) & (steps < delays + frames)


def delay(codes: Tensor, pad: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Delays codes: ``delayed[b, q, s] = codes[b, q, s - q]`` where ``0 <= s - q < T``, else ``pad``.

    Args:
        codes: ``(batch, codebooks, frames)``.
        pad: the pad token; the codebook size, for every MusicGen checkpoint.
        channels: audio channels of the checkpoint; with 2 the delay of codebook q is ``q // 2``.

    Returns:
        ``delayed`` ``(batch, codebooks, steps)`` and its ``mask`` ``(codebooks, steps)``, see ``delay_mask``.
    """
    batch, codebooks, frames = codes.shape
    mask = delay_mask(codebooks, frames, channels, codes.device)
    delayed = codes.new_full((batch, *mask.shape), pad)
    return delayed.scatter_(2, _places(codes, channels), codes), mask


def undelay(delayed: Tensor, frames: int, channels: int = 1) -> Tensor:
    """Inverse of ``delay``: ``(batch, codebooks, steps)`` back to ``(batch, codebooks, frames)``.

    Raises:
        ValueError: if the number of steps does not fit ``frames``.
    """
    codebooks, steps = delayed.shape[1:]
    expected = delay_mask(codebooks, frames, channels, delayed.device).shape[1]
    if steps != expected:
        raise ValueError(f"{frames} frames of {codebooks} codebooks take {expected} delayed steps, got {steps}.")
    return delayed.gather(2, _places(delayed[..., :frames], channels))


def _delays(codebooks: int, channels: int, device: torch.device | None) -> Tensor:
    """Of each codebook, ``(codebooks, 1)``, in steps."""
    return torch.arange(codebooks, device=device)[:, None] // channels


def _places(codes: Tensor, channels: int) -> Tensor:
    """The step of each of the codes ``(batch, codebooks, frames)``. Not a mask: a GPU would count its true entries
    first, and make the program wait for the number."""
    _, codebooks, frames = codes.shape
    places = torch.arange(frames, device=codes.device) + _delays(codebooks, channels, codes.device)
    return places.expand_as(codes)
