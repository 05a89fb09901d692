"""The MusicGen decoder, step by step, with preallocated key/value caches.

It computes the same as the library's forward pass (pre-norm layers: self-attention, cross-attention, feed-forward), but
faster: query, key and value weights are one matrix, the heads of all codebooks another, and text keys and values are
computed once per prompt. MusicGen's attention and feed-forward layers have no bias.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import GELUActivation
from transformers.models.musicgen.modeling_musicgen import MusicgenDecoderLayer

from qd.models.condition import Condition
from qd.models.language_model import LanguageModel
from qd.models.sampling.packed_linear import PackedLinear


class CachedDecoder:
    """Incremental decoding of one batch. It copies the current weights, so each batch needs a new one.

    Args:
        lm: Language model.
        condition: One row for each sequence; equal neighbours share their text keys and values.
        steps: Maximum number of steps.
    """

    def __init__(self, lm: LanguageModel, condition: Condition, steps: int):
        decoder = lm.decoder.model.decoder
        rows, samples = len(condition), shared_rows(condition)
        prompts = Condition(condition.states[::samples], condition.mask[::samples])
        states, visible = lm.project(prompts)
        bias = torch.zeros(visible.shape, dtype=states.dtype, device=states.device)
        bias = bias.masked_fill_(~visible, float("-inf"))[:, None, None]
        dtype = _product_dtype(states)
        self.layers = [_CachedLayer(layer, states, bias, rows, steps, dtype) for layer in decoder.layers]
        self.norm = decoder.layer_norm
        self.embeddings = torch.cat([table.weight for table in decoder.embed_tokens])
        # Row of each codebook's first token in the joint table; a codebook has V tokens and the pad.
        self.offsets = torch.arange(lm.codebooks, device=states.device) * (lm.codebook_size + 1)
        self.positions = decoder.embed_positions(torch.empty(1, 1, steps, device=states.device))
        self.joint_head = PackedLinear(torch.cat([head.weight for head in lm.decoder.lm_heads]).to(dtype), rows)
        self.codebooks = lm.codebooks
        self.step = 0

    def advance(self, tokens: Tensor) -> Tensor:
        """Feeds the previous step's tokens ``(batch, codebooks)``; returns hidden states ``(batch, width)``."""
        embedded = F.embedding_bag(tokens + self.offsets, self.embeddings, mode="sum")
        hidden = embedded + self.positions[self.step]
        # The precision of each product is already chosen; autocast would also round the attention.
        with torch.autocast(hidden.device.type, enabled=False):
            for layer in self.layers:
                hidden = layer(hidden, self.step)
            self.step += 1
            return self.norm(hidden)

    def heads(self, hidden: Tensor) -> Tensor:
        """Maps hidden states ``(batch, width)`` to float32 logits ``(batch, codebooks, codebook_size)``."""
        return self.joint_head(hidden).unflatten(1, (self.codebooks, -1)).float()


def shared_rows(condition: Condition) -> int:
    """Returns the largest n for which rows 0 … n−1, n … 2n−1, … of the condition are equal: the samples per prompt."""
    states, mask = condition.states.flatten(1), condition.mask
    new = (states[1:] != states[:-1]).any(dim=1) | (mask[1:] != mask[:-1]).any(dim=1)
    starts = (new.nonzero()[:, 0] + 1).tolist()
    return math.gcd(len(condition), *starts)


def _product_dtype(states: Tensor) -> torch.dtype:
    """Returns the precision of products with weights: autocast's if it is on, as in the passes that score samples."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


class _CachedLayer:
    def __init__(
        self, layer: MusicgenDecoderLayer, states: Tensor, bias: Tensor, rows: int, steps: int, dtype: torch.dtype
    ):
        attention, cross = layer.self_attn, layer.encoder_attn
        self.layer = layer
        self.split = (attention.num_heads, attention.head_dim)
        # With pre-scaled queries, their products with the keys are the attention scores.
        query = attention.q_proj.weight * attention.head_dim**-0.5
        self.qkv = PackedLinear(torch.cat([query, attention.k_proj.weight, attention.v_proj.weight]).to(dtype), rows)
        self.out = PackedLinear(attention.out_proj.weight.to(dtype), rows)
        self.text_query = PackedLinear(cross.q_proj.weight.to(dtype), rows)
        self.text_out = PackedLinear(cross.out_proj.weight.to(dtype), rows)
        self.fc1 = PackedLinear(layer.fc1.weight.to(dtype), rows)
        self.fc2 = PackedLinear(layer.fc2.weight.to(dtype), rows)
        self.fuse_gelu = isinstance(layer.activation_fn, GELUActivation)
        # On a CPU, attention uses the model's own precision: small products are slower in bfloat16 than in float32.
        self.dtype = states.dtype if states.device.type == "cpu" else dtype
        shape = (rows, attention.num_heads, steps, attention.head_dim)
        self.keys, self.values = (states.new_empty(shape, dtype=self.dtype) for _ in range(2))
        self.text_keys = self._split_heads(cross.k_proj(states)).contiguous()
        self.text_values = self._split_heads(cross.v_proj(states)).contiguous()
        self.bias = bias.to(self.dtype)

    def __call__(self, hidden: Tensor, step: int) -> Tensor:
        layer = self.layer
        hidden = self.out.add(self._self_attention(layer.self_attn_layer_norm(hidden), step), hidden)
        hidden = self.text_out.add(self._cross_attention(layer.encoder_attn_layer_norm(hidden)), hidden)
        return self.fc2.add(self.activated(layer.final_layer_norm(hidden)), hidden)

    def activated(self, hidden: Tensor) -> Tensor:
        """Applies the first feed-forward layer and the activation."""
        return self.fc1.gelu(hidden) if self.fuse_gelu else self.layer.activation_fn(self.fc1(hidden))

    def _self_attention(self, hidden: Tensor, step: int) -> Tensor:
        query, key, value = self.qkv(hidden).to(self.dtype).unflatten(1, (3, *self.split)).unbind(1)
        self.keys[:, :, step], self.values[:, :, step] = key, value
        keys, values = self.keys[:, :, : step + 1], self.values[:, :, : step + 1]
        # For a single query on a CPU, fused attention is several times slower than two batched matrix products.
        if query.device.type == "cpu":
            weights = (query[:, :, None] @ keys.transpose(2, 3)).softmax(dim=-1)
            return (weights @ values).flatten(1)
        return F.scaled_dot_product_attention(query[:, :, None], keys, values, scale=1.0).flatten(1)

    def _cross_attention(self, hidden: Tensor) -> Tensor:
        """Attends to the text. The samples of a prompt are its queries ``(prompts, heads, samples, head_dim)``, so its
        keys are read once."""
        queries = self._split_heads(self.text_query(hidden).unflatten(0, (len(self.text_keys), -1)))
        attended = F.scaled_dot_product_attention(queries, self.text_keys, self.text_values, attn_mask=self.bias)
        return attended.transpose(1, 2).flatten(2).flatten(0, 1)

    def _split_heads(self, states: Tensor) -> Tensor:
        """Splits ``(prompts, length, width)`` into ``(prompts, heads, length, head_dim)``, in attention precision."""
        return states.to(self.dtype).unflatten(-1, self.split).transpose(1, 2)
