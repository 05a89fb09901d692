"""The token loop on an NVIDIA GPU: one step is captured as a CUDA graph, which is then replayed.

A decoding step consists of hundreds of small operations, and launching them one by one takes longer than running them.
A graph launches all of them at once, but every address and shape in it is fixed, so the position is stored on the
device. The computation is the same as in ``draw_stepwise``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from qd.models.condition import Condition
from qd.models.language_model import LanguageModel
from qd.models.sampling.cached_decoder import CachedDecoder
from qd.models.sampling.gpu_kernels import (
    add_norm,
    attend_cached,
    attend_text,
    draw_tokens,
    product_gelu,
    product_parts,
)
from qd.models.sampling.stepwise_loop import both_halves, draw_from, guided_hidden
from qd.models.sampling.token_loop import Draw

RESERVE = 2**30
"""Bytes that must be free on the device before a capture, for intermediate results."""


class DevicePositionDecoder(CachedDecoder):
    """A :class:`CachedDecoder` that reads its position from a tensor on the device."""

    def advance_at(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Feeds the tokens ``(batch, codebooks)`` before position ``at`` ``(1,)``; returns its hidden states."""
        embedded = F.embedding_bag(tokens + self.offsets, self.embeddings, mode="sum")
        hidden, delta = embedded + self.positions[at], None
        with torch.autocast(hidden.device.type, enabled=False):
            for cached in self.layers:
                layer, dtype = cached.layer, cached.qkv.dtype
                normed = add_norm(hidden, delta, layer.self_attn_layer_norm, dtype)
                attended = attend_cached(product_parts(normed, cached.qkv), cached.keys, cached.values, at)
                normed = add_norm(hidden, product_parts(attended, cached.out), layer.encoder_attn_layer_norm, dtype)
                query = product_parts(normed, cached.text_query)
                attended = attend_text(query, cached.text_keys, cached.text_values, cached.bias)
                normed = add_norm(hidden, product_parts(attended, cached.text_out), layer.final_layer_norm, dtype)
                wide = product_gelu(normed, cached.fc1) if cached.fuse_gelu else cached.activated(normed)
                delta = product_parts(wide, cached.fc2)
            return add_norm(hidden, delta, self.norm, hidden.dtype)


class DevicePositionLoop:
    """Static buffers of one batch, and a decoding step that works on them.

    Args:
        lm: Language model.
        condition: One row per sequence; with guidance, followed by one negative row per sequence.
        mask: Delayed positions that hold a real token, ``(codebooks, steps)``.
        draw: How tokens are drawn.
    """

    def __init__(self, lm: LanguageModel, condition: Condition, mask: Tensor, draw: Draw):
        self.draw, (codebooks, steps) = draw, mask.shape
        batch, device = len(condition) // (2 if draw.guided else 1), condition.states.device
        self.decoder = DevicePositionDecoder(lm, condition, steps)
        self.real, self.pad = mask.T.contiguous(), lm.pad
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.tokens = torch.full((batch, codebooks), lm.pad, device=device)
        self.uniforms = torch.zeros(batch, codebooks, device=device)
        self.delayed = torch.full((batch, codebooks, steps), lm.pad, device=device)
        self.log_probs = torch.zeros(batch, codebooks, steps, device=device)
        self.entropy = torch.zeros(batch, codebooks, device=device)

    def advance(self) -> None:
        """Performs one step. Its operations are the same for every step; only values on the device differ."""
        hidden = self.decoder.advance_at(both_halves(self.tokens, self.draw), self.step)
        drawn, log_probs, entropy = self._pick(guided_hidden(hidden, self.draw))
        real = self.real.index_select(0, self.step)
        self.tokens.copy_(drawn.where(real, self.pad))
        self.delayed.index_copy_(2, self.step, self.tokens[..., None])
        self.log_probs.index_copy_(2, self.step, log_probs.where(real, 0.0)[..., None])
        self.entropy += entropy.where(real, 0.0)
        self.step += 1

    def _pick(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        draw = self.draw
        if hidden.device.type != "cuda" or draw.greedy or draw.top_k is not None or draw.top_p is not None:
            return draw_from(self.decoder.heads(hidden), draw, self.uniforms)
        logits = self.decoder.joint_head(hidden).unflatten(1, self.tokens.shape[1:] + (-1,))
        return draw_tokens(logits, draw.inverse_temperature, self.uniforms)


def draw_graphed(lm: LanguageModel, condition: Condition, mask: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Draws the same as ``draw_stepwise``, on an NVIDIA GPU."""
    device = condition.states.device  # not necessarily the current device
    loop, graph, stream = DevicePositionLoop(lm, condition, mask, draw), None, _stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for step in range(mask.shape[1]):
            if draw.uniforms is not None:
                loop.uniforms.copy_(draw.uniforms(step))
            if graph:
                graph.replay()
            else:  # the first step runs normally: it allocates memory and selects kernels, which a capture must not do
                loop.advance()
                graph = _captured(loop.advance)
    torch.cuda.current_stream(device).wait_stream(stream)
    return loop.delayed, loop.log_probs, loop.entropy.sum(dim=1)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the stream for captures, which the default stream does not allow.

    All batches share it, because PyTorch caches memory per stream.
    """
    return torch.cuda.Stream(device)


def _captured(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Captures the operations that ``work`` launches on the current stream."""
    graph = torch.cuda.CUDAGraph()
    if torch.cuda.mem_get_info()[0] < RESERVE:  # PyTorch cannot release cached memory during a capture
        torch.cuda.empty_cache()
    gc.disable()  # the garbage collector must not free device memory during a capture either
    try:
        graph.capture_begin(capture_error_mode="thread_local")  # other threads load data and write logs
        try:
            work()
        finally:  # an open capture would make the next call fail and hide the error
            graph.capture_end()
    finally:
        gc.enable()
    return graph


@cache
def runs_graphed(device: torch.device) -> bool:
    """Returns whether the device supports CUDA graphs, and Triton is installed."""
    return device.type == "cuda" and torch.version.cuda is not None and find_spec("triton") is not None
