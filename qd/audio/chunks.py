"""Applies a function to a batch a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FRAMES_AT_ONCE = 800
"""Spectrogram frames in a chunk on a CPU: 4 clips of 4 s for the built-in codec, 6 for the built-in embedder."""


def map_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int | None) -> Tensor:
    """Returns ``function(rows)``, computed for at most ``size`` rows at once.

    Args:
        function: Maps ``(batch, …)`` to ``(batch, …)``. No row of the result depends on another row of the input.
        rows: Input, ``(batch, …)``.
        size: Rows in a chunk; the last chunk may be smaller. None: all rows at once.
    """
    if size is None or len(rows) <= size:
        return function(rows)
    return torch.cat([function(chunk) for chunk in rows.split(size)])


def cached_rows(clips: Tensor, frames: int) -> int | None:
    """Returns the number of clips whose intermediate results fit into a CPU's cache; None for all clips at once.

    The intermediate results of a whole batch are tens of megabytes each, which a CPU reads from memory for every
    operation. Those of a few clips stay in its cache. On a GPU, and with gradients, the whole batch runs at once.

    Args:
        clips: Clips, ``(batch, …)``.
        frames: Spectrogram frames of one clip.
    """
    if clips.device.type != "cpu" or torch.is_grad_enabled():
        return None
    return max(1, FRAMES_AT_ONCE // frames)
