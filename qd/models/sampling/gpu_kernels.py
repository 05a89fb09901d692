"""What a decoding step does on an NVIDIA GPU, each part as one kernel (Triton); elsewhere the same in plain operations.

A step of a hundred rows is bound by reading weights, keys and values, and by the start of each kernel. So

- attention reads keys and values once, up to a position that is a number on the device: one graph serves every step;
- products are cut along the inputs too, into as many parts as keep the device busy, and what comes next adds the parts;
- from Hopper on, a kernel is started before the one ahead of it is done (programmatic dependent launch), and waits for
  it once it has read what was written steps ago.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qd.models.sampling.packed_linear import PackedLinear

ROWS, OUTPUTS, INPUTS, STAGES = 64, 64, 128, 4
"""Of a product: the block of results of a program, how many inputs it takes at once, how many such are on their way."""
CACHED = {"BLOCK": 16, "STAGES": 2, "num_warps": 1}
TEXT = {"BLOCK": 32, "num_warps": 1}
"""Keys that a program of attention reads at once, and how. All are the fastest that were found for heads of 64."""


def add_norm(hidden: Tensor, delta: Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
    """Adds the parts ``delta`` ``(parts, rows, width)`` to ``hidden`` ``(rows, width)`` in place.

    Returns:
        The layer norm of the sum, in ``dtype``.
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
    """``(parts, rows, outputs)``, whose sum over the parts is ``x Wᵀ``."""
    return linear(x)[None] if _whole(linear.weight) else _product(x, linear.weight, torch.float32)


def product_gelu(x: Tensor, linear: PackedLinear) -> Tensor:
    """``gelu(x Wᵀ)`` ``(rows, outputs)``, the exact one."""
    return linear.gelu(x) if _whole(linear.weight) else _product(x, linear.weight, x.dtype, gelu=True)[0]


def attend_cached(qkv: Tensor, keys: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Writes the step's key and value into the cache, and attends to all up to there.

    Args:
        qkv: ``(parts, rows, 3 · width)``, of scaled queries, keys and values.
        keys, values: ``(rows, heads, steps, head_dim)``.
        at: ``(1,)``, the position.

    Returns:
        ``(rows, width)``, in the type of the cache.
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
    """Attention of samples to the text of their prompt.

    Args:
        query: ``(parts, prompts · samples, width)``, scaled like any attention's: by 1 / √head_dim, here.
        keys, values: ``(prompts, heads, length, head_dim)``.
        bias: ``(prompts, 1, 1, length)``, 0 or -inf.
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
    """What ``stepwise_loop.draw_from`` draws from all tokens; on an NVIDIA GPU alone.

    Args:
        logits: ``(batch, codebooks, tokens)``.
        inverse_temperature: ``(batch, 1, 1)`` or ``(1, 1, 1)``.
        uniforms: ``(batch, codebooks)``.

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


def _whole(weight: Tensor) -> bool:
    """Whether a product is the library's: its float32 is exact, where the kernel's multiplies with fewer digits."""
    return _plain(weight) or weight.dtype == torch.float32


def _power(size: int) -> int:
    """The least power of 2 that is not less."""
    return 1 << (size - 1).bit_length()


def _launch(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    from qd.models.sampling import triton_kernels

    early = _starts_early(arguments[0].device)
    how = {"launch_pdl": True} if early else {}
    getattr(triton_kernels, name)[grid](*arguments, EARLY=early, **constants, **how)


@cache
def _starts_early(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


@cache
def _limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors, and how many blocks a product can load ahead in the memory that they share."""
    if device.type != "cuda":
        return 1, STAGES
    properties = torch.cuda.get_device_properties(device)
    block = 2 * (ROWS + OUTPUTS) * INPUTS  # bytes, of two in each number
    return properties.multi_processor_count, min(STAGES, properties.shared_memory_per_block_optin // block)
