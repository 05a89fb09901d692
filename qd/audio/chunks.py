"""Listening and decoding piece by piece, so that what a CPU works on stays in its cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FRAMES_AT_ONCE = 800
"""Frames of a spectrogram in a piece: 4 clips of 4 s of the built-in codec, 6 of the built-in embedder."""


def in_pieces(function: Callable[[Tensor], Tensor], clips: Tensor, frames: int) -> Tensor:
    """``function(clips)``, where no row of the result depends on another row of ``clips``.

    The intermediate results of a whole batch are tens of megabytes each: every operation of a CPU fetches them from
    memory, and the system hands them out anew each time. Of a few clips they stay in the cache. A GPU, and a backward
    pass, take the batch as it is.

    Args:
        function: of ``(batch, …)``.
        clips: ``(batch, …)``.
        frames: of a spectrogram, in one clip.
    """
    rows = max(1, FRAMES_AT_ONCE // frames)
    if len(clips) <= rows or clips.device.type != "cpu" or torch.is_grad_enabled():
        return function(clips)
    return torch.cat([function(piece) for piece in clips.split(rows)])
