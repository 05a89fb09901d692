"""Batches of thousands on one small device: cached gradients (GradCache, Gao et al. 2021).

A contrastive loss needs the embeddings of the whole batch, but its gradient passes through each of them alone. So the
batch is embedded in chunks whose activations are dropped at once; the loss of all embeddings e gives ∂L/∂e; then each
chunk is embedded again, with its activations, and propagates its part of ∂L/∂e on. The model runs forward twice, and
memory holds the activations of one chunk.

This is what activation checkpointing does when each chunk is one checkpoint: autograd keeps the order (it finishes a
chunk before it recomputes the next), and adds a parameter's gradient up over the chunks before the parameter, and with
it the synchronisation over ranks, sees it. Therefore no gradient is cached by hand, no chunk but the last
synchronises, and the loss is back-propagated, clipped and resumed as any other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qd.audio.chunks import map_chunks


def embed_with_cached_gradients(model: Callable[[Tensor], Tensor], audio: Tensor, chunk_clips: int | None) -> Tensor:
    """``model(audio)``, whose backward pass holds the activations of ``chunk_clips`` clips at once.

    Equal to the direct embeddings and gradients, up to rounding, where the model treats each clip alone and draws no
    random numbers. ``audio`` must be what both passes are to hear: augment it before.

    Args:
        model: ``(clips, samples)`` → ``(clips, width)``.
        audio: ``(batch, samples)``.
        chunk_clips: clips in a chunk, the last of which may be smaller; with None, or a batch that fits into one, the
            model runs once.
    """
    if chunk_clips is None or len(audio) <= chunk_clips or not torch.is_grad_enabled():
        return map_chunks(model, audio, chunk_clips)

    def embed(chunk: Tensor) -> Tensor:
        # Without its cache, autocast rounds a weight anew for each chunk, and the gradients of the chunks are added up
        # in the weight's precision. With it, they would meet in the one rounded copy, in half precision.
        device = chunk.device.type
        precision = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
        with torch.autocast(device, **precision, cache_enabled=False):
            return model(chunk)

    return map_chunks(
        lambda chunk: checkpoint(embed, chunk, use_reentrant=False, preserve_rng_state=False), audio, chunk_clips
    )
