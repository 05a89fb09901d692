"""The kernels of ``gpu_kernels.py``, which tells what each does, and imports this at their first use.

Only PyTorch for a GPU brings Triton.
"""

# ruff: noqa: N803 (constants that a kernel is compiled for are in capitals)

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

# Each lets the next kernel start at once, and waits for the one before when it needs what that has written.


@triton.jit
def add_norm(
    hidden, delta, weight, bias, normed, width, stride, eps,
    PARTS: tl.constexpr, SIZE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0), tl.arange(0, SIZE)
    inside, place = column < width, row * width + column
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(hidden + place, mask=inside, other=0.0).to(tl.float32)
    for part in tl.static_range(PARTS):
        x += tl.load(delta + part * stride + place, mask=inside, other=0.0).to(tl.float32)
    if PARTS:
        tl.store(hidden + place, x, mask=inside)
    mean = tl.sum(x) / width
    centred = tl.where(inside, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred) / width + eps)
    tl.store(normed + place, centred * scale * gain + shift, mask=inside)


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
    place = result + (part.to(tl.int64) * rows + m[:, None]) * outputs + n[None, :]
    tl.store(place, total, mask=(m < rows)[:, None] & (n < outputs)[None, :])


# Attention: BLOCK softmaxes side by side, each over every BLOCK-th key, so that threads need not meet at each key.
# `top` is the greatest score of each, `total` the sum of its weights, `mixed` that of the weighted values.


@triton.jit
def attend(query, k, v, there, top, total, mixed):
    scores = tl.where(there, tl.sum(k.to(tl.float32) * query[None, :], 1), -1e30)
    higher = tl.maximum(top, scores)
    weights, kept = tl.where(there, tl.exp(scores - higher), 0.0), tl.exp(top - higher)
    return higher, total * kept + weights, mixed * kept[:, None] + weights[:, None] * v.to(tl.float32)


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
    # The first two blocks of the cache, which earlier steps have written, while the step's own key is on its way.
    place, near, far = first + lane[:, None] * size + d[None, :], lane < position, BLOCK + lane < position
    k0 = tl.load(keys + place, mask=near[:, None] & inside[None, :], other=0.0)
    v0 = tl.load(values + place, mask=near[:, None] & inside[None, :], other=0.0)
    k1 = tl.load(keys + place + BLOCK * size, mask=far[:, None] & inside[None, :], other=0.0)
    v1 = tl.load(values + place + BLOCK * size, mask=far[:, None] & inside[None, :], other=0.0)
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
        there = start + lane < position
        k = tl.load(keys + place + start * size, mask=there[:, None] & inside[None, :], other=0.0)
        v = tl.load(values + place + start * size, mask=there[:, None] & inside[None, :], other=0.0)
        top, total, mixed = attend(query, k, v, there, top, total, mixed)
    score = tl.sum(query * key)
    highest = tl.maximum(tl.max(top), score)
    shares, share = tl.exp(top - highest), tl.exp(score - highest)
    heard = tl.sum(mixed * shares[:, None], 0) + share * value
    total_weight = tl.sum(total * shares) + share
    tl.store(result + row.to(tl.int64) * width + head * size + d, heard / total_weight, mask=inside)


@triton.jit
def attend_text(
    query, keys, values, bias, result, heads, length, size, samples, scale, stride,
    PARTS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    prompt, d, lane = row // samples, tl.arange(0, SIZE), tl.arange(0, BLOCK)
    inside, place = d < size, row * heads * size + head * size + d
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    q = tl.zeros([SIZE], tl.float32)
    for part in tl.static_range(PARTS):
        q += tl.load(query + part * stride + place, mask=inside, other=0.0).to(tl.float32)
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
    heard = tl.sum(mixed * shares[:, None], 0) / tl.sum(total * shares)
    tl.store(result + place, heard, mask=inside)


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
    # Sums that are made side by side need not rise from each token to the next: the first that is reached.
    cdf = tl.where(possible, tl.cumsum(probs, 0), 0.0)
    reached = possible & (cdf >= tl.load(uniforms + row) * tl.max(cdf))
    drawn = tl.minimum(tl.min(tl.where(reached, token, SIZE)), count - 1)
    tl.store(tokens + row, drawn)
    tl.store(scores + row, tl.sum(tl.where(token == drawn, x, 0.0)))
