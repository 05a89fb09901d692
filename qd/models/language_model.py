"""The language model of a MusicGen: the decoder over delayed codes, as it is trained and as it teaches."""

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
    """What is trained: the decoder over delayed codes, and the projection of the text states to its width.

    Args:
        decoder: the library's decoder with its heads.
        projection: ``nn.Linear(text_width, width)``, or Identity (the default) where the widths are equal.

    Attributes:
        codebooks: number of codebooks Q.
        codebook_size: tokens V of a codebook.
        pad: the token of delayed positions outside the clip, V.
        channels: audio channels of the checkpoint; the delay of codebook q is ``q // channels``.

    Raises:
        ValueError: if the decoder's pad token is not V.
    """

    def __init__(self, decoder: MusicgenForCausalLM, projection: nn.Module | None = None):
        super().__init__()
        config = decoder.config
        if config.pad_token_id != config.vocab_size:
            wrong = f"pad_token_id must equal vocab_size={config.vocab_size}, got {config.pad_token_id}"
            raise ValueError(f"decoder: {wrong}; set it in the decoder's config.json.")
        # Exact and fast; and a decoder taken from a composite built of parts has none at all, hence no causal mask.
        decoder.set_attn_implementation("sdpa")
        self.decoder = decoder
        self.projection = projection if projection is not None else nn.Identity()
        self.codebooks: int = config.num_codebooks
        self.codebook_size: int = config.vocab_size
        self.pad: int = config.vocab_size
        self.channels: int = config.audio_channels
        self.eval()

    def train(self, mode: bool = True) -> LanguageModel:
        """Stays in eval mode whatever is asked: dropout would part the scores from the sampling policy."""
        return super().train(False)

    def project(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Cross-attention states ``(batch, length, width)``, zero where masked, and the mask of the visible ones.

        A null row keeps its first state visible. That state is zero, and so then are its keys and values: attention
        returns the library's exact zeros, with no softmax over an empty set and no NaN in its gradient.
        """
        states = self.projection(condition.states.to(self.decoder.dtype)) * condition.mask[..., None]
        visible = condition.mask.clone()
        visible[:, 0] |= ~condition.mask.any(dim=1)
        return states, visible

    def hidden_states(self, delayed: Tensor, condition: Condition) -> Tensor:
        """Teacher-forced last hidden states ``(batch, steps, width)``; the one at step s predicts delayed step s.

        Args:
            delayed: ``(batch, codebooks, steps)``, see ``qd.models.delay.delay``. The input at step s is delayed step
                s - 1, all pad at step 0.
            condition: one row for each row of ``delayed``.
        """
        start = delayed.new_full((*delayed.shape[:2], 1), self.pad)
        inputs = torch.cat([start, delayed[..., :-1]], dim=-1)
        states, visible = self.project(condition)
        text = {"encoder_hidden_states": states, "encoder_attention_mask": visible}
        return self.decoder.model(inputs.flatten(0, 1), **text, use_cache=False).last_hidden_state

    def heads(self, hidden: Tensor) -> Tensor:
        """Logits ``(batch, codebooks, steps, codebook_size)`` of states ``(batch, steps, width)``; linear, no bias."""
        return torch.stack([head(hidden) for head in self.decoder.lm_heads], dim=1)

    def logits(self, delayed: Tensor, condition: Condition) -> Tensor:
        """``heads(hidden_states(delayed, condition))``."""
        return self.heads(self.hidden_states(delayed, condition))

    def checkpoint_layers(self) -> None:
        """From now on the backward pass computes the activations inside each layer again instead of keeping them.

        The library's own switch acts in training mode alone, which would turn its dropout on.
        """
        for layer in self.decoder.model.decoder.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)

    def attend_plainly(self) -> None:
        """From now on attention is plain products.

        On a CPU in bfloat16 the fused attention's backward takes three times as long; everywhere else it is faster.
        """
        self.decoder.set_attn_implementation("eager")

    def shard(self, mesh: DeviceMesh) -> None:
        """From now on a rank of the mesh holds its share of every weight; :meth:`hidden_states` gathers layer by layer.

        Heads, embeddings and projection are gathered with the model itself and stay so until the backward pass has
        used them: :meth:`heads` can follow. What else reads weights does so inside :meth:`merged`.
        """
        for layer in self.decoder.model.decoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self, mesh=mesh)
        register_fsdp_forward_method(self, "hidden_states")

    def frozen(self, dtype: torch.dtype | None = None) -> LanguageModel:
        """This model as it is now, which never changes any more: a copy, in ``dtype`` if one is given."""
        return copy.deepcopy(self).requires_grad_(False).to(dtype)

    @contextmanager
    def merged(self) -> Iterator[LanguageModel]:
        """A model of plain layers that holds the weights as they act: this model itself, with all its weights gathered.

        Where they are shared out over ranks, all of them must enter.
        """
        with gathered(self):
            yield self
