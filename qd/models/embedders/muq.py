"""MuQ (the package ``muq``, an extra) as an embedder."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from qd.models.checkpoints.pretrained import load_hub_mixin
from qd.models.embedders.clip_embedder import FrozenEmbedder
from qd.runs.extras import require

MUQ = "OpenMuQ/MuQ-large-msd-iter"
SAMPLE_RATE = 24_000
CLIP_SECONDS = 10.0
"""MuQ accepts any length; MuQ-MuLan, which is built on it, uses clips of this length."""
MIN_SECONDS = 1.0


class MuqEmbedder(FrozenEmbedder):
    """Mean over time of MuQ's last hidden states (Zhu et al. 2025), of which there are 25 a second.

    A clip shorter than 1 s is padded with zeros. The weights have the licence CC-BY-NC 4.0.

    Args:
        model: A ``muq.MuQ``.
    """

    @classmethod
    def from_pretrained(cls, source: str = MUQ) -> MuqEmbedder:
        """Loads a hub name, or a folder with the model's files.

        Raises:
            ValueError: the extra is not installed, or the model cannot be loaded.
        """
        return cls(with_transformers_5(load_hub_mixin(require("muq", "muq").MuQ, source)))

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return SAMPLE_RATE

    @property
    def embedding_width(self) -> int:
        """Length of an embedding vector; 1024 for the published model."""
        return self.model.config.encoder_dim

    @property
    def clip_seconds(self) -> float:
        """Longest clip of one forward pass, in seconds."""
        return CLIP_SECONDS

    def embed_clips(self, clips: Tensor) -> Tensor:
        """Embeds clips ``(batch, samples)``; returns ``(batch, embedding_width)``."""
        return self.model(pad_short_clips(clips), output_hidden_states=False).last_hidden_state.mean(dim=1)


def pad_short_clips(clips: Tensor) -> Tensor:
    """Pads ``(batch, samples)`` with zeros to :data:`MIN_SECONDS`; shorter clips have too few frames for the model."""
    return F.pad(clips, (0, max(0, round(MIN_SECONDS * SAMPLE_RATE) - clips.shape[1])))


def with_transformers_5(model: nn.Module) -> nn.Module:
    """Makes a model of the package ``muq`` 0.1.0 work with version 5 of the transformers library, and returns it.

    The package expects version 4's conformer, which returns the states of all layers and selects its own attention
    implementation.
    """
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder

    for encoder in [module for module in model.modules() if isinstance(module, Wav2Vec2ConformerEncoder)]:
        encoder.config._attn_implementation = "eager"
        encoder.forward = _Layers(encoder)
    return model


class _Layers:
    """A conformer's forward pass that also returns each layer's input, and the result, as ``hidden_states``."""

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder, self.run = encoder, encoder.forward

    def __call__(self, hidden_states: Tensor, **options: Any) -> dict[str, Any]:
        options.pop("output_hidden_states", None)
        states: list[Tensor] = []

        def record(layer: nn.Module, arguments: tuple, named: dict[str, Any]) -> None:
            states.append(arguments[0] if arguments else named["hidden_states"])

        hooks = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in self.encoder.layers]
        try:
            last = self.run(hidden_states, **options).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return {"last_hidden_state": last, "hidden_states": (*states, last)}
