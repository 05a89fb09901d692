"""The operations of a decoding step: one Triton kernel each on an NVIDIA GPU, plain PyTorch operations elsewhere.

The time of a step with a hundred rows is spent on reading weights, keys and values, and on launching kernels. Therefore

- attention reads keys and values once, up to a position that is stored on the device, so one graph serves every step;
- products are also split along the inputs, into enough parts to keep the device busy; the next kernel adds the parts;
- on Hopper and newer GPUs, a kernel starts before the previous one has finished (programmatic dependent launch): it
  first reads data of earlier steps, and then waits for the previous kernel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qd.models.sampling.packed_linear import PackedLinear

ROWS, OUTPUTS, INPUTS, STAGES = 64, 64, 128, 4
"""Of a product: the rows and outputs of a program's block, its inputs per iteration, and its pipeline stages."""
CACHED = {"BLOCK": 16, "STAGES": 2, "num_warps": 1}
TEXT = {"BLOCK": 32, "num_warps": 1}
"""Launch options of attention: keys per block, pipeline stages and warps; the fastest values for a head size of 64."""


def add_norm(hidden: Tensor, delta: Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
    """Adds the parts ``delta`` ``(parts, rows, width)`` to ``hidden`` ``(rows, width)`` in place.

    Returns:
        Layer norm of the sum, in ``dtype``.
    """
    if _plain(hidden):
        if delta is not None:
            hidden += delta.sum(dim=0)
        return norm(hidden).to(dtype)
    normed, (rows, width) = torch.empty_like(hidden, dtype=dtype), hidden.shape
    _launch(
        "add_norm", (rows,), hidden, hidden if delta is None else delta, norm.weight, norm.bias, normed, width,
        rows * width, norm.eps, PARTS=0 if delta is None else len(delta), SIZE=_power(width),
    )  # fmt: skip
    return normed


def product_parts(x: Tensor, linear: PackedLinear) -> Tensor:
    """Returns ``(parts, rows, outputs)``, whose sum over the parts is ``x Wᵀ``."""
    return linear(x)[None] if _uses_library(linear.weight) else _product(x, linear.weight, torch.float32)


def product_gelu(x: Tensor, linear: PackedLinear) -> Tensor:
    """Returns the exact ``gelu(x Wᵀ)`` ``(rows, outputs)``."""
    return linear.gelu(x) if _uses_library(linear.weight) else _product(x, linear.weight, x.dtype, gelu=True)[0]


def attend_cached(qkv: Tensor, keys: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Writes the step's key and value into the cache, and attends to all positions up to this step.

    Args:
        qkv: Scaled queries, keys and values ``(parts, rows, 3 · width)``.
        keys: Cache of keys ``(rows, heads, steps, head_dim)``.
        values: Cache of values, of the same shape.
        at: Position of the step ``(1,)``.

    Returns:
        Attention output ``(rows, width)``, in the type of the cache.
    """
    rows, heads, steps, size = keys.shape
    if _plain(qkv):
        query, key, value = qkv.sum(dim=0).to(keys.dtype).unflatten(1, (3, heads, size)).unbind(1)
        keys.index_copy_(2, at, key[:, :, None])
        values.index_copy_(2, at, value[:, :, None])
        read = slice(0, int(at) + 1)
        weights = (query[:, :, None] @ keys[:, :, read].transpose(2, 3)).softmax(dim=-1)
        return (weights @ values[:, :, read]).flatten(1)
    result = keys.new_empty(rows, heads * size)
    _launch(
        "attend_cached", (rows * heads,), qkv, keys, values, at, result, heads, steps, size, 3 * rows * heads * size,
        PARTS=len(qkv), SIZE=_power(size), **CACHED,
    )  # fmt: skip
    return result


def attend_text(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attends from each sample to the text of its prompt; the scores are scaled by 1 / √head_dim here.

    Args:
        query: Unscaled queries ``(parts, prompts · samples, width)``.
        keys: Text keys ``(prompts, heads, length, head_dim)``.
        values: Text values, of the same shape.
        bias: Mask ``(prompts, 1, 1, length)``, 0 or -inf.
    """
    prompts, heads, length, size = keys.shape
    if _plain(query):
        queries = query.sum(dim=0).to(keys.dtype).unflatten(0, (prompts, -1)).unflatten(-1, (heads, size))
        attended = F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values, attn_mask=bias)
        return attended.transpose(1, 2).flatten(2).flatten(0, 1)
    rows = query.shape[1]
    result = keys.new_empty(rows, heads * size)
    _launch(
        "attend_text", (rows * heads,), query, keys, values, bias, result, heads, length, size, rows // prompts,
        size**-0.5, rows * heads * size, PARTS=len(query), SIZE=_power(size), **TEXT,
    )  # fmt: skip
    return result


def draw_tokens(logits: Tensor, inverse_temperature: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws tokens like ``stepwise_loop.draw_from`` without truncation; only on an NVIDIA GPU.

    Args:
        logits: Logits ``(batch, codebooks, tokens)``.
        inverse_temperature: 1 / temperature, ``(batch, 1, 1)`` or ``(1, 1, 1)``.
        uniforms: Uniforms ``(batch, codebooks)``.

    Returns:
        Tokens, their log-probabilities and the entropies, each ``(batch, codebooks)``.
    """
    (batch, codebooks, count), shape = logits.shape, uniforms.shape
    tokens, scores = logits.new_empty(shape, dtype=torch.long), logits.new_empty(shape, dtype=torch.float32)
    entropy, scales = torch.empty_like(scores), inverse_temperature.expand(batch, 1, 1)
    _launch(
        "draw_tokens", (batch * codebooks,), logits, scales, uniforms, tokens, scores, entropy, count, codebooks,
        scales.stride(0), SIZE=_power(count),
    )  # fmt: skip
    return tokens, scores, entropy


def _product(x: Tensor, weight: Tensor, dtype: torch.dtype, gelu: bool = False) -> Tensor:
    (rows, inputs), outputs = x.shape, len(weight)
    tiles = (-(-outputs // OUTPUTS), -(-rows // ROWS))
    processors, stages = _limits(x.device)
    parts = 1
    while not gelu and 2 * parts * tiles[0] * tiles[1] <= processors and inputs >= 4 * parts * INPUTS:
        parts *= 2
    share = -(-inputs // (parts * INPUTS)) * INPUTS
    result = x.new_empty(parts, rows, outputs, dtype=dtype)
    _launch(
        "product", (*tiles, parts), x.contiguous(), weight, result, rows, inputs, outputs, share,
        GELU=gelu, M=ROWS, N=OUTPUTS, K=INPUTS, STAGES=stages,
    )  # fmt: skip
    return result


def _plain(x: Tensor) -> bool:
    return x.device.type != "cuda"


def _uses_library(weight: Tensor) -> bool:
    """Returns whether PyTorch computes a product: its float32 is exact, while the kernel uses a lower precision."""
    return _plain(weight) or weight.dtype == torch.float32


def _power(size: int) -> int:
    """Returns the smallest power of 2 that is at least ``size``."""
    return 1 << (size - 1).bit_length()


def _launch(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    from qd.models.sampling import triton_kernels

    early = _starts_early(arguments[0].device)
    options = {"launch_pdl": True} if early else {}
    getattr(triton_kernels, name)[grid](*arguments, EARLY=early, **constants, **options)


@cache
def _starts_early(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


@cache
def _limits(device: torch.device) -> tuple[int, int]:
    """Returns the number of multiprocessors, and the pipeline stages of a product that fit into shared memory."""
    if device.type != "cuda":
        return 1, STAGES
    properties = torch.cuda.get_device_properties(device)
    block = 2 * (ROWS + OUTPUTS) * INPUTS  # bytes, two per number
    return properties.multi_processor_count, min(STAGES, properties.shared_memory_per_block_optin // block)
