"""What a decoding step does between its products with weights, each as one kernel of an NVIDIA GPU (Triton).

Where each row is one query, attention is bound by reading keys and values: they are read once, up to a position that is
a number on the device, so that one captured graph serves every step. Elsewhere the same in plain operations.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CACHED = {"BLOCK": 16, "num_warps": 2, "num_stages": 3}
TEXT = {"BLOCK": 16, "num_warps": 1, "num_stages": 1}
"""Keys that a program reads at once, and how: the fastest that were found on an H100, of heads of 64."""


def add_norm(hidden: Tensor, delta: Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
    """Adds ``delta`` to ``hidden`` ``(rows, width)`` in place, and returns the layer norm of the sum in ``dtype``."""
    if hidden.device.type != "cuda":
        if delta is not None:
            hidden += delta
        return norm(hidden).to(dtype)
    normed, (rows, width) = torch.empty_like(hidden, dtype=dtype), hidden.shape
    size = 1 << (width - 1).bit_length()
    added = hidden if delta is None else delta
    _kernels().add_norm[(rows,)](
        hidden, added, norm.weight, norm.bias, normed, width, norm.eps, ADD=delta is not None, SIZE=size
    )
    return normed


def attend_cached(qkv: Tensor, keys: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Writes the step's key and value into the cache, and attends to all up to there.

    Args:
        qkv: ``(rows, 3 · width)``, of scaled queries, keys and values.
        keys, values: ``(rows, heads, steps, head_dim)``.
        at: ``(1,)``, the position.

    Returns:
        ``(rows, width)``, in the type of ``qkv``.
    """
    rows, heads, steps, size = keys.shape
    if qkv.device.type != "cuda":
        query, key, value = qkv.unflatten(1, (3, heads, size)).unbind(1)
        keys.index_copy_(2, at, key[:, :, None])
        values.index_copy_(2, at, value[:, :, None])
        read = slice(0, int(at) + 1)
        weights = (query[:, :, None] @ keys[:, :, read].transpose(2, 3)).softmax(dim=-1)
        return (weights @ values[:, :, read]).flatten(1)
    result = torch.empty_like(qkv[:, : heads * size])
    _kernels().attend_cached[(rows * heads,)](
        qkv, keys, values, at, result, heads, steps, size, SIZE=1 << (size - 1).bit_length(), **CACHED
    )
    return result


def attend_text(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of samples to the text of their prompt.

    Args:
        query: ``(prompts · samples, width)``, scaled like any attention's: by 1 / √head_dim, here.
        keys, values: ``(prompts, heads, length, head_dim)``.
        bias: ``(prompts, 1, 1, length)``, 0 or -inf.
    """
    prompts, heads, length, size = keys.shape
    if query.device.type != "cuda":
        queries = query.unflatten(0, (prompts, -1)).unflatten(-1, (heads, size)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return attended.transpose(1, 2).flatten(2).flatten(0, 1)
    result, rows = torch.empty_like(query), len(query)
    _kernels().attend_text[(rows * heads,)](
        query, keys, values, bias, result, heads, length, size, rows // prompts, size**-0.5,
        SIZE=1 << (size - 1).bit_length(), **TEXT,
    )  # fmt: skip
    return result


@cache
def _kernels() -> Any:
    """Defined at their first use: only PyTorch for a GPU brings Triton."""
    import triton
    import triton.language as tl

    @triton.jit
    def add_norm(hidden, delta, weight, bias, normed, width, eps, ADD: tl.constexpr, SIZE: tl.constexpr):  # noqa: N803
        row, column = tl.program_id(0), tl.arange(0, SIZE)
        inside = column < width
        x = tl.load(hidden + row * width + column, mask=inside, other=0.0).to(tl.float32)
        if ADD:
            x += tl.load(delta + row * width + column, mask=inside, other=0.0).to(tl.float32)
            tl.store(hidden + row * width + column, x, mask=inside)
        mean = tl.sum(x) / width
        centred = tl.where(inside, x - mean, 0.0)
        scale = tl.rsqrt(tl.sum(centred * centred) / width + eps)
        gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
        shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(normed + row * width + column, centred * scale * gain + shift, mask=inside)

    @triton.jit
    def attend_cached(
        qkv, keys, values, at, result, heads, steps, size, SIZE: tl.constexpr, BLOCK: tl.constexpr  # noqa: N803
    ):  # fmt: skip
        row, head = tl.program_id(0) // heads, tl.program_id(0) % heads
        position, d = tl.load(at), tl.arange(0, SIZE)
        inside, width = d < size, heads * size
        own = qkv + row.to(tl.int64) * 3 * width + head * size + d
        query = tl.load(own, mask=inside, other=0.0).to(tl.float32)
        key, value = tl.load(own + width, mask=inside, other=0.0), tl.load(own + 2 * width, mask=inside, other=0.0)
        first = (row * heads + head).to(tl.int64) * steps * size
        tl.store(keys + first + position * size + d, key, mask=inside)
        tl.store(values + first + position * size + d, value, mask=inside)
        # The softmax as it comes in, from the step's own key on: the greatest score, the sum, the weighted values.
        top = tl.sum(query * key.to(tl.float32))
        total, mixed = 1.0, value.to(tl.float32)
        for start in range(0, position, BLOCK):
            step = start + tl.arange(0, BLOCK)
            place = first + step[:, None] * size + d[None, :]
            there = (step < position)[:, None] & inside[None, :]
            k = tl.load(keys + place, mask=there, other=0.0).to(tl.float32)
            v = tl.load(values + place, mask=there, other=0.0).to(tl.float32)
            scores = tl.where(step < position, tl.sum(k * query[None, :], 1), float("-inf"))
            higher = tl.maximum(top, tl.max(scores))
            weights, kept = tl.exp(scores - higher), tl.exp(top - higher)
            total = total * kept + tl.sum(weights)
            mixed = mixed * kept + tl.sum(weights[:, None] * v, 0)
            top = higher
        tl.store(result + row.to(tl.int64) * width + head * size + d, mixed / total, mask=inside)

    @triton.jit
    def attend_text(
        query, keys, values, bias, result, heads, length, size, samples, scale,
        SIZE: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
    ):  # fmt: skip
        row, head = tl.program_id(0) // heads, tl.program_id(0) % heads
        prompt, d = row // samples, tl.arange(0, SIZE)
        inside, place = d < size, row * heads * size + head * size + d
        q = tl.load(query + place, mask=inside, other=0.0).to(tl.float32) * scale
        first = (prompt * heads + head) * length * size
        top, total, mixed = float("-inf"), 0.0, tl.zeros([SIZE], tl.float32)
        for start in range(0, length, BLOCK):
            token = start + tl.arange(0, BLOCK)
            there = (token < length)[:, None] & inside[None, :]
            k = tl.load(keys + first + token[:, None] * size + d[None, :], mask=there, other=0.0).to(tl.float32)
            v = tl.load(values + first + token[:, None] * size + d[None, :], mask=there, other=0.0).to(tl.float32)
            hidden = tl.load(bias + prompt * length + token, mask=token < length, other=float("-inf")).to(tl.float32)
            scores = tl.sum(k * q[None, :], 1) + hidden
            higher = tl.maximum(top, tl.max(scores))
            weights, kept = tl.exp(scores - higher), tl.exp(top - higher)
            total = total * kept + tl.sum(weights)
            mixed = mixed * kept + tl.sum(weights[:, None] * v, 0)
            top = higher
        tl.store(result + place, mixed / total, mask=inside)

    return SimpleNamespace(add_norm=add_norm, attend_cached=attend_cached, attend_text=attend_text)
