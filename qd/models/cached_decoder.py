"""The MusicGen decoder one step at a time, over key/value caches allocated once.

Same arithmetic as the library's forward (pre-norm layers: self-attention, cross-attention, feed-forward), laid out for
speed: query, key and value weights in one matrix, all codebooks' heads in another, text keys and values computed once.
Attention and feed-forward layers of MusicGen have no bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.musicgen.modeling_musicgen import MusicgenDecoderLayer

from qd.models.condition import Condition
from qd.models.musicgen import LanguageModel


class CachedDecoder:
    """Incremental decoding of one batch; it copies weights as they are now, so build a new one for each batch.

    Args:
        lm: the language model.
        condition: one row for each sequence.
        steps: the most steps that will be decoded.
    """

    def __init__(self, lm: LanguageModel, condition: Condition, steps: int):
        decoder = lm.decoder.model.decoder
        states, visible = lm.project(condition)
        bias = torch.zeros(visible.shape, dtype=states.dtype, device=states.device)
        self.bias = bias.masked_fill_(~visible, float("-inf"))[:, None, None]
        self.layers = [_CachedLayer(layer, states, steps) for layer in decoder.layers]
        self.norm = decoder.layer_norm
        self.embeddings = torch.cat([table.weight for table in decoder.embed_tokens])
        # Row of the first token of each codebook in the joint table; a codebook has V tokens and the pad.
        self.offsets = torch.arange(lm.codebooks, device=states.device) * (lm.codebook_size + 1)
        self.positions = decoder.embed_positions(torch.empty(1, 1, steps, device=states.device))
        self.head_weight = torch.cat([head.weight for head in lm.decoder.lm_heads])
        self.codebooks = lm.codebooks
        self.step = 0

    def advance(self, tokens: Tensor) -> Tensor:
        """Feeds the last step's tokens ``(batch, codebooks)``; returns this step's hidden states ``(batch, width)``."""
        hidden = self.embeddings[tokens + self.offsets].sum(dim=1) + self.positions[self.step]
        for layer in self.layers:
            hidden = layer(hidden, self.step, self.bias)
        self.step += 1
        return self.norm(hidden)

    def heads(self, hidden: Tensor) -> Tensor:
        """Float32 logits ``(batch, codebooks, codebook_size)`` of hidden states ``(batch, width)``."""
        return F.linear(hidden, self.head_weight).unflatten(1, (self.codebooks, -1)).float()


class _CachedLayer:
    def __init__(self, layer: MusicgenDecoderLayer, states: Tensor, steps: int):
        attention, cross = layer.self_attn, layer.encoder_attn
        self.layer = layer
        self.split = (attention.num_heads, attention.head_dim)
        self.qkv_weight = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        shape = (states.shape[0], attention.num_heads, steps, attention.head_dim)
        self.keys, self.values = states.new_empty(shape), states.new_empty(shape)
        self.text_keys = cross.k_proj(states).unflatten(-1, self.split).transpose(1, 2).contiguous()
        self.text_values = cross.v_proj(states).unflatten(-1, self.split).transpose(1, 2).contiguous()

    def __call__(self, hidden: Tensor, step: int, bias: Tensor) -> Tensor:
        hidden = hidden + self._self_attention(hidden, step)
        hidden = hidden + self._cross_attention(hidden, bias)
        layer = self.layer
        return hidden + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))

    def _self_attention(self, hidden: Tensor, step: int) -> Tensor:
        joint = F.linear(self.layer.self_attn_layer_norm(hidden), self.qkv_weight)
        query, key, value = joint.unflatten(1, (3, *self.split)).unbind(1)
        self.keys[:, :, step], self.values[:, :, step] = key, value
        past = slice(step + 1)
        attended = F.scaled_dot_product_attention(query[:, :, None], self.keys[:, :, past], self.values[:, :, past])
        return self.layer.self_attn.out_proj(attended.flatten(1))

    def _cross_attention(self, hidden: Tensor, bias: Tensor) -> Tensor:
        attention = self.layer.encoder_attn
        query = attention.q_proj(self.layer.encoder_attn_layer_norm(hidden)).unflatten(1, self.split)
        attended = F.scaled_dot_product_attention(query[:, :, None], self.text_keys, self.text_values, attn_mask=bias)
        return attention.out_proj(attended.flatten(1))
