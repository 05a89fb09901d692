"""The Triton kernels of ``gpu_kernels.py``, which documents them and imports this module at their first use.

Triton is only installed with PyTorch for a GPU.
"""

# ruff: noqa: N803 (compile-time constants of a kernel are in capitals)

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

# Each kernel lets the next one start immediately, and waits for the previous one before it reads its results.


@triton.jit
def add_norm(
    hidden, delta, weight, bias, normed, width, stride, eps,
    PARTS: tl.constexpr, SIZE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0), tl.arange(0, SIZE)
    inside, offset = column < width, row * width + column
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(hidden + offset, mask=inside, other=0.0).to(tl.float32)
    for part in tl.static_range(PARTS):
        x += tl.load(delta + part * stride + offset, mask=inside, other=0.0).to(tl.float32)
    if PARTS:
        tl.store(hidden + offset, x, mask=inside)
    mean = tl.sum(x) / width
    centred = tl.where(inside, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred) / width + eps)
    tl.store(normed + offset, centred * scale * gain + shift, mask=inside)


@triton.jit
def product(
    x, weight, result, rows, inputs, outputs, share, GELU: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    K: tl.constexpr, STAGES: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    n, m = tl.program_id(0) * N + tl.arange(0, N), tl.program_id(1) * M + tl.arange(0, M)
    part = tl.program_id(2)
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    total = tl.zeros([M, N], tl.float32)
    for start in tl.range(0, share, K, num_stages=STAGES):
        k = part * share + start + tl.arange(0, K)
        left = tl.load(
            x + m[:, None] * inputs + k[None, :], mask=(m < rows)[:, None] & (k < inputs)[None, :], other=0.0
        )
        right = tl.load(
            weight + n[None, :] * inputs + k[:, None],
            mask=(n < outputs)[None, :] & (k < inputs)[:, None],
            other=0.0,
        )
        total = tl.dot(left, right, total)
    if GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    target = result + (part.to(tl.int64) * rows + m[:, None]) * outputs + n[None, :]
    tl.store(target, total, mask=(m < rows)[:, None] & (n < outputs)[None, :])


# Attention: BLOCK parallel softmaxes, each over every BLOCK-th key, so that threads do not synchronise at each key.
# `top` is the largest score of each, `total` the sum of its weights, `mixed` the sum of its weighted values.


@triton.jit
def attend(query, k, v, valid, top, total, mixed):
    scores = tl.where(valid, tl.sum(k.to(tl.float32) * query[None, :], 1), -1e30)
    higher = tl.maximum(top, scores)
    weights, decay = tl.where(valid, tl.exp(scores - higher), 0.0), tl.exp(top - higher)
    return higher, total * decay + weights, mixed * decay[:, None] + weights[:, None] * v.to(tl.float32)


@triton.jit
def attend_cached(
    qkv, keys, values, at, result, heads, steps, size, stride, PARTS: tl.constexpr, SIZE: tl.constexpr,
    BLOCK: tl.constexpr, STAGES: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    d, lane = tl.arange(0, SIZE), tl.arange(0, BLOCK)
    inside, width = d < size, heads * size
    if EARLY:
        gdc_launch_dependents()
    position, first = tl.load(at), (row * heads + head).to(tl.int64) * steps * size
    # Earlier steps have written the first two blocks of the cache: they are read before this step's key is computed.
    offset, near, far = first + lane[:, None] * size + d[None, :], lane < position, BLOCK + lane < position
    k0 = tl.load(keys + offset, mask=near[:, None] & inside[None, :], other=0.0)
    v0 = tl.load(values + offset, mask=near[:, None] & inside[None, :], other=0.0)
    k1 = tl.load(keys + offset + BLOCK * size, mask=far[:, None] & inside[None, :], other=0.0)
    v1 = tl.load(values + offset + BLOCK * size, mask=far[:, None] & inside[None, :], other=0.0)
    if EARLY:
        gdc_wait()
    own = qkv + row.to(tl.int64) * 3 * width + head * size + d
    query, key, value = tl.zeros([SIZE], tl.float32), tl.zeros([SIZE], tl.float32), tl.zeros([SIZE], tl.float32)
    for part in tl.static_range(PARTS):
        query += tl.load(own + part * stride, mask=inside, other=0.0).to(tl.float32)
        key += tl.load(own + part * stride + width, mask=inside, other=0.0).to(tl.float32)
        value += tl.load(own + part * stride + 2 * width, mask=inside, other=0.0).to(tl.float32)
    tl.store(keys + first + position * size + d, key, mask=inside)
    tl.store(values + first + position * size + d, value, mask=inside)
    top, total = tl.full([BLOCK], -1e30, tl.float32), tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, SIZE], tl.float32)
    top, total, mixed = attend(query, k0, v0, near, top, total, mixed)
    top, total, mixed = attend(query, k1, v1, far, top, total, mixed)
    for start in tl.range(2 * BLOCK, position, BLOCK, num_stages=STAGES):
        valid = start + lane < position
        k = tl.load(keys + offset + start * size, mask=valid[:, None] & inside[None, :], other=0.0)
        v = tl.load(values + offset + start * size, mask=valid[:, None] & inside[None, :], other=0.0)
        top, total, mixed = attend(query, k, v, valid, top, total, mixed)
    score = tl.sum(query * key)
    highest = tl.maximum(tl.max(top), score)
    shares, share = tl.exp(top - highest), tl.exp(score - highest)
    weighted = tl.sum(mixed * shares[:, None], 0) + share * value
    total_weight = tl.sum(total * shares) + share
    tl.store(result + row.to(tl.int64) * width + head * size + d, weighted / total_weight, mask=inside)


@triton.jit
def attend_text(
    query, keys, values, bias, result, heads, length, size, samples, scale, stride,
    PARTS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    prompt, d, lane = row // samples, tl.arange(0, SIZE), tl.arange(0, BLOCK)
    inside, offset = d < size, row * heads * size + head * size + d
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    q = tl.zeros([SIZE], tl.float32)
    for part in tl.static_range(PARTS):
        q += tl.load(query + part * stride + offset, mask=inside, other=0.0).to(tl.float32)
    q *= scale
    first = (prompt * heads + head) * length * size
    top, total = tl.full([BLOCK], -1e30, tl.float32), tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, SIZE], tl.float32)
    for start in range(0, length, BLOCK):
        token = start + lane
        text, present = first + token[:, None] * size + d[None, :], (token < length)[:, None] & inside[None, :]
        k = tl.load(keys + text, mask=present, other=0.0)
        v = tl.load(values + text, mask=present, other=0.0)
        visible = tl.load(bias + prompt * length + token, mask=token < length, other=-1.0).to(tl.float32) == 0.0
        top, total, mixed = attend(q, k, v, visible, top, total, mixed)
    shares = tl.exp(top - tl.max(top))
    attended = tl.sum(mixed * shares[:, None], 0) / tl.sum(total * shares)
    tl.store(result + offset, attended, mask=inside)


@triton.jit
def draw_tokens(
    logits, scales, uniforms, tokens, scores, entropy, count, codebooks, stride, SIZE: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    row, token = tl.program_id(0), tl.arange(0, SIZE)
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(logits + row * count + token, mask=token < count, other=float("-inf")).to(tl.float32)
    x *= tl.load(scales + row // codebooks * stride)
    x -= tl.max(x)
    x -= tl.log(tl.sum(tl.exp(x)))
    probs = tl.exp(x)
    possible = probs > 0.0
    tl.store(entropy + row, -tl.sum(tl.where(possible, probs * x, 0.0)))
    # A parallel cumulative sum may decrease slightly between tokens, so take the first one that reaches the uniform.
    cdf = tl.where(possible, tl.cumsum(probs, 0), 0.0)
    reached = possible & (cdf >= tl.load(uniforms + row) * tl.max(cdf))
    drawn = tl.minimum(tl.min(tl.where(reached, token, SIZE)), count - 1)
    tl.store(tokens + row, drawn)
    tl.store(scores + row, tl.sum(tl.where(token == drawn, x, 0.0)))
