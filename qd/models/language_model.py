"""The language model of a MusicGen, both as the trained student and as the frozen teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint
from transformers import MusicgenForCausalLM

from qd.models.condition import Condition
from qd.runs.sharding import gathered


class LanguageModel(nn.Module):
    """The trainable part: the decoder over delayed codes, and the projection of the text states to the decoder's width.

    Args:
        decoder: The library's decoder with its heads.
        projection: ``nn.Linear(text_width, width)``, or Identity (the default) if the widths are equal.

    Attributes:
        codebooks: Number of codebooks Q.
        codebook_size: Number of tokens V of a codebook.
        pad: Token of delayed positions outside the clip, V.
        channels: Audio channels of the checkpoint; the delay of codebook q is ``q // channels``.

    Raises:
        ValueError: the decoder's pad token is not V.
    """

    def __init__(self, decoder: MusicgenForCausalLM, projection: nn.Module | None = None):
        super().__init__()
        config = decoder.config
        if config.pad_token_id != config.vocab_size:
            wrong = f"pad_token_id must equal vocab_size={config.vocab_size}, got {config.pad_token_id}"
            raise ValueError(f"decoder: {wrong}; set it in the decoder's config.json.")
        # Exact and fast. A decoder from a composite model may have no attention implementation set, and then it would
        # apply no causal mask.
        decoder.set_attn_implementation("sdpa")
        self.decoder = decoder
        self.projection = projection if projection is not None else nn.Identity()
        self.codebooks: int = config.num_codebooks
        self.codebook_size: int = config.vocab_size
        self.pad: int = config.vocab_size
        self.channels: int = config.audio_channels
        self.eval()

    def train(self, mode: bool = True) -> LanguageModel:
        """Keeps eval mode, whatever ``mode`` is: with dropout, the scores would not match the sampling policy."""
        return super().train(False)

    def project(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Returns cross-attention states ``(batch, length, width)``, zero where masked, and the mask of visible states.

        The first state of a null row stays visible. It is zero, so its keys and values are zero, and attention returns
        exact zeros as in the library, without a softmax over an empty set and without NaN gradients.
        """
        states = self.projection(condition.states.to(self.decoder.dtype)) * condition.mask[..., None]
        visible = condition.mask.clone()
        visible[:, 0] |= ~condition.mask.any(dim=1)
        return states, visible

    def hidden_states(self, delayed: Tensor, condition: Condition) -> Tensor:
        """Returns the last hidden states ``(batch, steps, width)`` with teacher forcing; state s predicts step s.

        Args:
            delayed: Delayed codes ``(batch, codebooks, steps)``, see ``qd.models.delay.delay``. The input at step s is
                delayed step s - 1; at step 0 it is all pad.
            condition: One row for each row of ``delayed``.
        """
        start = delayed.new_full((*delayed.shape[:2], 1), self.pad)
        inputs = torch.cat([start, delayed[..., :-1]], dim=-1)
        states, visible = self.project(condition)
        text = {"encoder_hidden_states": states, "encoder_attention_mask": visible}
        return self.decoder.model(inputs.flatten(0, 1), **text, use_cache=False).last_hidden_state

    def heads(self, hidden: Tensor) -> Tensor:
        """Maps states ``(batch, steps, width)`` to logits ``(batch, codebooks, steps, codebook_size)``; no bias."""
        return torch.stack([head(hidden) for head in self.decoder.lm_heads], dim=1)

    def logits(self, delayed: Tensor, condition: Condition) -> Tensor:
        """Returns ``heads(hidden_states(delayed, condition))``."""
        return self.heads(self.hidden_states(delayed, condition))

    def checkpoint_layers(self) -> None:
        """Turns on activation checkpointing: the backward pass recomputes the activations inside each layer.

        The library's own switch only works in training mode, which would enable dropout.
        """
        for layer in self.decoder.model.decoder.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)

    def attend_plainly(self) -> None:
        """Switches to unfused attention.

        On a CPU in bfloat16, the backward pass of fused attention takes three times as long; elsewhere it is faster.
        """
        self.decoder.set_attn_implementation("eager")

    def shard(self, mesh: DeviceMesh) -> None:
        """Shards every weight over the ranks of the mesh; :meth:`hidden_states` gathers the weights layer by layer.

        Heads, embeddings and projection are gathered with the model itself and stay gathered until the backward pass
        has used them, so :meth:`heads` can follow. Any other code that reads weights must do so inside :meth:`merged`.
        """
        for layer in self.decoder.model.decoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self, mesh=mesh)
        register_fsdp_forward_method(self, "hidden_states")

    def frozen(self, dtype: torch.dtype | None = None) -> LanguageModel:
        """Returns a frozen copy with the current weights, in ``dtype`` if it is given."""
        return copy.deepcopy(self).requires_grad_(False).to(dtype)

    @contextmanager
    def merged(self) -> Iterator[LanguageModel]:
        """Yields a model of plain layers with the effective weights: this model, with all sharded weights gathered.

        If the weights are sharded over ranks, all ranks must enter the context.
        """
        with gathered(self):
            yield self
