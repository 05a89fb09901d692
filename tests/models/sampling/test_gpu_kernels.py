"""The kernels of a decoding step, compared with plain operations, on a GPU or with Triton's interpreter:

TRITON_INTERPRET=1 make test ARGS=tests/models/sampling/test_gpu_kernels.py
"""

from __future__ import annotations

import copy
import os
from contextlib import nullcontext
from importlib.util import find_spec
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from qd.models.sampling import gpu_kernels
from qd.models.sampling.cached_decoder import CachedDecoder
from qd.models.sampling.gpu_kernels import (
    add_norm,
    attend_cached,
    attend_text,
    draw_tokens,
    product_gelu,
    product_parts,
)
from qd.models.sampling.graphed_loop import DevicePositionDecoder
from qd.models.sampling.packed_linear import PackedLinear
from qd.models.sampling.stepwise_loop import draw_from
from qd.models.sampling.token_loop import Draw

PROCESSORS = 132
"""Number of multiprocessors, which determines how products are split."""


@pytest.fixture
def device(monkeypatch):
    """Device of the kernels: a GPU, or the CPU with Triton's interpreter."""
    if torch.cuda.is_available():
        stages = gpu_kernels._limits(torch.device("cuda"))[1]
        monkeypatch.setattr(gpu_kernels, "_limits", lambda device: (PROCESSORS, stages))
        return "cuda"
    if os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None:
        pytest.skip("needs an NVIDIA GPU, or triton (pip install triton) and TRITON_INTERPRET=1")
    monkeypatch.setattr(gpu_kernels, "_limits", lambda device: (PROCESSORS, 4))
    return "cpu"


def forced_kernels():
    return patch.object(gpu_kernels, "_plain", lambda x: False)


POSITIONS = (0, 1, 16, 32, 33, 140)


@pytest.mark.parametrize(("heads", "size"), [(4, 64), (2, 24)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_attention_and_norm_equal_plain_operations_in_float32(device, heads, size, dtype, error):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return (0.7 * torch.randn(*shape, generator=generator)).to(dtype)

    parts, rows, width, norm = 2, 6, heads * size, torch.nn.LayerNorm(heads * size, eps=0.1)
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    hidden, delta, qkv = random(rows, width), random(parts, rows, width), random(parts, rows, 3 * width)
    query, caches, text = (
        random(parts, rows, width),
        *([random(n, heads, steps, size) for _ in range(2)] for n, steps in ((rows, 150), (3, 70))),
    )
    last = torch.tensor([2, 40, 69])[:, None, None, None]
    bias = torch.zeros(3, 1, 1, 70).masked_fill(torch.arange(70) > last, -torch.inf)
    outputs = []
    for plain in (True, False):
        options = {"device": "cpu", "dtype": torch.float32} if plain else {"device": device, "dtype": dtype}
        with nullcontext() if plain else forced_kernels():
            x = hidden.float().to(options["device"], copy=True)
            keys, values = (cache.to(**options, copy=True) for cache in caches)
            normed = add_norm(x, delta.to(**options), norm.to(options["device"]), options["dtype"])
            results = [x, normed, add_norm(x, None, norm, torch.float32)]
            for position in POSITIONS:
                at = torch.tensor([position], device=options["device"])
                results.append(attend_cached(qkv.to(**options), keys, values, at))
            results += [keys, values]
            results.append(attend_text(query.to(**options), *(x.to(**options) for x in text), bias.to(**options)))
        outputs.append([result.detach().float().cpu() for result in results])
    for plain, fused in zip(*outputs, strict=True):
        torch.testing.assert_close(fused, plain, atol=error, rtol=error)


@torch.no_grad()
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "count"), [(3, 40, 30, 1), (70, 1024, 200, 4), (256, 512, 512, 2), (5, 600, 30, 2)]
)
def test_products_equal_plain_operations_in_float32(device, rows, inputs, outputs, count):
    generator = torch.Generator().manual_seed(0)
    half = torch.bfloat16 if device == "cuda" else torch.float16  # the interpreter cannot multiply bfloat16
    x, weight = (torch.randn(n, inputs, generator=generator).to(half) for n in (rows, outputs))
    weight /= inputs**0.5
    linear = PackedLinear(weight.to(device), rows)
    linear.weight = weight.to(device)  # not in oneDNN's blocks
    with forced_kernels():
        parts, wide = product_parts(x.to(device), linear), product_gelu(x.to(device), linear)
    assert parts.dtype == torch.float32 and len(parts) == count
    expected = x.float() @ weight.float().T
    torch.testing.assert_close(parts.sum(dim=0).cpu(), expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(wide.float().cpu(), F.gelu(expected), atol=2e-2, rtol=1e-2)


@torch.no_grad()
def test_steps_in_float16_are_close_to_plain_steps_in_float32(device, make_lm, make_condition):
    """All kernels in sequence, with products in two parts, one text for two samples, and float16 weights."""
    lm = make_lm(hidden_size=512, ffn_dim=600, num_attention_heads=8)
    for weight in lm.parameters():
        weight.mul_(0.3)  # sharper attention would amplify rounding errors
    condition = make_condition(3, 40, 512).repeat_interleave(2)
    tokens = torch.randint(17, (4, 6, lm.codebooks), generator=torch.Generator().manual_seed(0))
    plain = CachedDecoder(lm, condition, 4)
    expected = [plain.advance(step) for step in tokens]
    with forced_kernels(), patch.object(gpu_kernels, "_product", wraps=gpu_kernels._product) as product:
        decoder = DevicePositionDecoder(copy.deepcopy(lm).half().to(device), condition.to(device), 4)
        hidden = [
            decoder.advance_at(step.to(device), torch.tensor([at], device=device)) for at, step in enumerate(tokens)
        ]
    assert product.call_count == 4 * 2 * 6
    for actual, reference in zip(hidden, expected, strict=True):
        assert actual.dtype == torch.float16
        torch.testing.assert_close(actual.float().cpu(), reference, atol=1e-2, rtol=1e-2)


def draw_settings(scales):
    return Draw(scales, None, False, 1.0, None, None, False)


@pytest.mark.parametrize(("tokens", "dtype"), [(2048, torch.bfloat16), (2048, torch.float32), (50, torch.float32)])
def test_drawing_equals_plain_operations(device, tokens, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 3, tokens, generator=generator).to(dtype)
    logits[0, 0, 1:] = -torch.inf  # only one token is possible
    scales, uniforms = torch.linspace(0.5, 2, 40)[:, None, None], torch.rand(40, 3, generator=generator)
    logits[2, 0, :7] = -torch.inf  # these are never drawn, even at a uniform of 0
    uniforms[:3, 0] = torch.tensor([0.0, 1.0, 0.0])
    expected = draw_from(logits.float(), draw_settings(scales), uniforms)
    drawn, log_probs, entropy = (
        output.cpu() for output in draw_tokens(logits.to(device), scales.to(device), uniforms.to(device))
    )
    assert (drawn == expected[0]).float().mean() > 0.98  # a rounded sum may pass a uniform
    assert drawn[0, 0] == 0 and drawn[2, 0] >= 7
    scores = (logits.float() * scales).log_softmax(dim=-1)
    torch.testing.assert_close(log_probs, scores.gather(-1, drawn[..., None])[..., 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(entropy, expected[2], atol=1e-3, rtol=1e-4)
    shared = draw_tokens(logits.to(device), scales[:1].to(device), uniforms.to(device))[2]
    expected = draw_from(logits.float(), draw_settings(scales[:1]), uniforms)
    torch.testing.assert_close(shared.cpu(), expected[2], atol=1e-3, rtol=1e-4)
