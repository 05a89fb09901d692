"""Cached gradients (GradCache, Gao et al. 2021): batches of thousands of clips on a small device.

A contrastive loss needs the embeddings of the whole batch, but its gradient passes through each embedding separately.
So the batch is embedded in chunks without storing activations. The loss of all embeddings e gives ∂L/∂e. Then each
chunk is embedded again, with activations, and propagates its part of ∂L/∂e. The model runs forward twice, and memory
holds the activations of one chunk.

Activation checkpointing with one checkpoint for each chunk does the same. Autograd finishes a chunk before it
recomputes the next one, and adds up the gradient of a parameter over all chunks before it passes it on to the parameter
and to the synchronisation over ranks. So no gradient is cached by hand, the ranks synchronise once, and backward pass,
clipping and resuming work as in any other training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qd.audio.chunks import map_chunks


def embed_with_cached_gradients(model: Callable[[Tensor], Tensor], audio: Tensor, chunk_clips: int | None) -> Tensor:
    """Returns ``model(audio)`` with a backward pass that stores the activations of ``chunk_clips`` clips at once.

    Embeddings and gradients equal the direct ones up to rounding, if the model treats each clip separately and draws no
    random numbers. Both forward passes must see the same ``audio``, so augment it before.

    Args:
        model: Maps ``(clips, samples)`` to ``(clips, width)``.
        audio: Clips, ``(batch, samples)``.
        chunk_clips: Clips in a chunk; the last chunk may be smaller. With None, or if the batch fits into one chunk,
            the model runs forward once.

    Returns:
        Embeddings, ``(batch, width)``.
    """
    if chunk_clips is None or len(audio) <= chunk_clips or not torch.is_grad_enabled():
        return map_chunks(model, audio, chunk_clips)

    def embed(chunk: Tensor) -> Tensor:
        # Without its cache, autocast rounds each weight again for each chunk, and the gradients of the chunks are added
        # up in the precision of the weight. With the cache they would be added up in half precision.
        device = chunk.device.type
        precision = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
        with torch.autocast(device, **precision, cache_enabled=False):
            return model(chunk)

    return map_chunks(
        lambda chunk: checkpoint(embed, chunk, use_reentrant=False, preserve_rng_state=False), audio, chunk_clips
    )
