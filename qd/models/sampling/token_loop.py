"""The token loop in C++: the layout of its weights, its arguments, and the condition for its use.

``token_loop.cpp`` draws all tokens of a batch in one call; ``stepwise_loop.py`` does the same with PyTorch operations.
The structs below equal those of the C++ file, in the same order.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import GELUActivation
from transformers.models.musicgen.modeling_musicgen import MusicgenDecoderLayer

from qd.models.condition import Condition
from qd.models.language_model import LanguageModel
from qd.models.sampling.cached_decoder import shared_rows
from qd.models.sampling.compiled import load_library


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn from the logits of a step; see ``Sampler.sample``.

    Attributes:
        inverse_temperature: 1 / temperature, ``(batch, 1, 1)`` or ``(1, 1, 1)``.
        uniforms: Function from a delayed step to its uniforms; None if ``greedy``.
        guided: Whether the condition holds B conditional rows, followed by B negative rows.
    """

    inverse_temperature: Tensor
    uniforms: Callable[[int], Tensor] | None
    guided: bool
    guidance_scale: float
    top_k: int | None
    top_p: float | None
    greedy: bool


class _Norm(Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p)]


class _Layer(Structure):
    _fields_ = [(name, _Norm) for name in ("self_norm", "text_norm", "ffn_norm")] + [
        (name, c_void_p) for name in ("qkv", "out", "text_query", "text_out", "fc1", "fc2", "text_keys", "text_values")
    ]


class _Model(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("layers", "width", "heads", "ffn", "codebooks", "tokens")),
        ("epsilon", c_float), ("layer", POINTER(_Layer)), ("norm", _Norm),
        *((name, c_void_p) for name in ("embeddings", "positions", "head")),
    ]  # fmt: skip


class _Work(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("sequences", "steps", "samples", "text_length", "guided")),
        *((name, c_int64) for name in ("negative_text", "greedy", "top_k")),
        ("top_p", c_float), ("scale", c_float),
        *((name, c_void_p) for name in ("text_bias", "inverse_temperature", "uniforms", "real")),
        *((name, c_void_p) for name in ("delayed", "log_probs", "entropy")),
    ]  # fmt: skip


def runs_compiled(lm: LanguageModel) -> bool:
    """Returns whether the C++ loop supports this model: float32 weights on a CPU, exact GELU, and a C++ compiler.

    It computes in float32 even under autocast. Scores in bfloat16 differ from it by as much as they differ from the
    plain loop in bfloat16, which rounds differently and takes twice as long.
    """
    weight = lm.decoder.lm_heads[0].weight
    plain = all(isinstance(layer.activation_fn, GELUActivation) for layer in lm.decoder.model.decoder.layers)
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32 and plain
    return fits and load_library() is not None


def draw_compiled(lm: LanguageModel, condition: Condition, mask: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Draws the same as ``draw_stepwise``, with the C++ loop."""
    library = load_library()
    batch, steps = len(condition) // (2 if draw.guided else 1), mask.shape[1]
    with torch.autocast("cpu", enabled=False):
        weights = _Weights(lm, condition, steps, library.lanes())
    delayed = torch.full((batch, *mask.shape), lm.pad)
    log_probs, entropy = torch.zeros(batch, *mask.shape), torch.zeros(batch, dtype=torch.float64)
    uniforms = None if draw.greedy else torch.stack([draw.uniforms(step) for step in range(steps)]).float().contiguous()
    if uniforms is not None and uniforms.shape != (steps, batch, lm.codebooks):
        raise ValueError(
            f"uniforms must give ({batch}, {lm.codebooks}) numbers per step, got {tuple(uniforms.shape[1:])}."
        )
    inverse_temperature = draw.inverse_temperature.flatten().expand(batch).contiguous()
    real = mask.to(torch.uint8).contiguous()
    work = _Work(
        batch, steps, weights.samples, weights.text_length, draw.guided, bool(condition.mask[batch:].any()),
        draw.greedy, draw.top_k or lm.codebook_size, 1.0 if draw.top_p is None else draw.top_p, draw.guidance_scale,
        _address(weights.text_bias), _address(inverse_temperature), _address(uniforms), _address(real),
        _address(delayed), _address(log_probs), _address(entropy),
    )  # fmt: skip
    threads = c_int64(torch.get_num_threads())
    if not library.draw_tokens(ctypes.byref(weights.model), ctypes.byref(work), threads):
        raise MemoryError(f"not enough memory for the keys and values of {len(condition)} rows of {steps} steps.")
    return delayed, log_probs, entropy.float()


class _Weights:
    """The current weights of a model, and the text of a batch, in the layouts of the C++ file.

    ``model`` holds addresses of tensors, which stay valid as long as this object exists.
    """

    def __init__(self, lm: LanguageModel, condition: Condition, steps: int, lanes: int):
        decoder, config = lm.decoder.model.decoder, lm.decoder.config
        self.lanes, self.heads, self.tensors = lanes, config.num_attention_heads, []
        self.samples = shared_rows(condition)
        prompts = Condition(condition.states[:: self.samples], condition.mask[:: self.samples])
        states, visible = lm.project(prompts)
        self.text_length = states.shape[1]
        bias = torch.full(visible.shape, -1e30).masked_fill_(visible, 0.0)
        self.text_bias = F.pad(bias, (0, -self.text_length % lanes), value=-1e30).contiguous()
        layers = [self._layer(layer, states) for layer in decoder.layers]
        self.model = _Model(
            len(layers), config.hidden_size, self.heads, config.ffn_dim, lm.codebooks, lm.codebook_size,
            decoder.layer_norm.eps, (_Layer * len(layers))(*layers), self._norm(decoder.layer_norm),
            self._keep(torch.cat([table.weight for table in decoder.embed_tokens])),
            self._keep(decoder.embed_positions(torch.empty(1, 1, steps))),
            self._pack(torch.cat([head.weight for head in lm.decoder.lm_heads])),
        )  # fmt: skip

    def _layer(self, layer: MusicgenDecoderLayer, states: Tensor) -> _Layer:
        attention, cross = layer.self_attn, layer.encoder_attn
        scale = attention.head_dim**-0.5  # with pre-scaled queries, their products with the keys are the scores
        norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
        own = torch.cat([attention.q_proj.weight * scale, attention.k_proj.weight, attention.v_proj.weight])
        weights = (
            own, attention.out_proj.weight, cross.q_proj.weight * scale, cross.out_proj.weight,
            layer.fc1.weight, layer.fc2.weight,
        )  # fmt: skip
        keys, values = (self._split_heads(projection(states)) for projection in (cross.k_proj, cross.v_proj))
        keys, values = keys.transpose(3, 4), F.pad(values, (0, -values.shape[-1] % self.lanes))
        return _Layer(*map(self._norm, norms), *map(self._pack, weights), self._keep(keys), self._keep(values))

    def _split_heads(self, states: Tensor) -> Tensor:
        """Splits and pads ``(prompts, length, width)`` to ``(prompts, length / lanes, heads, lanes, head_size)``."""
        filled = F.pad(states, (0, 0, 0, -states.shape[1] % self.lanes))
        return filled.unflatten(2, (self.heads, -1)).unflatten(1, (-1, self.lanes)).transpose(2, 3)

    def _pack(self, weight: Tensor) -> int:
        """Reorders ``(outputs, inputs)`` to ``(outputs / lanes, inputs, lanes)``; the last panel is zero-padded."""
        missing = -len(weight) % self.lanes
        filled = F.pad(weight, (0, 0, 0, missing)) if missing else weight
        return self._keep(filled.unflatten(0, (-1, self.lanes)).transpose(1, 2))

    def _norm(self, norm: nn.LayerNorm) -> _Norm:
        return _Norm(self._keep(norm.weight), self._keep(norm.bias))

    def _keep(self, tensor: Tensor) -> int:
        self.tensors.append(tensor.detach().float().contiguous())
        return _address(self.tensors[-1])


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
