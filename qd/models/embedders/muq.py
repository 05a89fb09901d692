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
"""MuQ takes any length; this is what MuQ-MuLan, which is built on it, hears at once."""
LEAST_SECONDS = 1.0


class MuqEmbedder(FrozenEmbedder):
    """Audio → mean over time of MuQ's last hidden states (Zhu et al. 2025), 25 of them a second.

    Zeros follow a clip shorter than 1 s. The weights are licensed CC-BY-NC 4.0.

    Args:
        model: a ``muq.MuQ``.
    """

    @classmethod
    def from_pretrained(cls, source: str = MUQ) -> MuqEmbedder:
        """Of a hub name, or of a folder with its files.

        Raises:
            ValueError: the extra is not installed, or the model cannot be had.
        """
        return cls(bridged(load_hub_mixin(require("muq", "muq").MuQ, source)))

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return SAMPLE_RATE

    @property
    def embedding_width(self) -> int:
        """Length of an embedding; 1024 for the published model."""
        return self.model.config.encoder_dim

    @property
    def clip_seconds(self) -> float:
        """The longest clip heard at once."""
        return CLIP_SECONDS

    def embed_clips(self, clips: Tensor) -> Tensor:
        """``(batch, samples)`` → ``(batch, embedding_width)``."""
        return self.model(lengthened(clips), output_hidden_states=False).last_hidden_state.mean(dim=1)


def lengthened(clips: Tensor) -> Tensor:
    """``(batch, samples)`` followed by zeros up to :data:`LEAST_SECONDS`: of less the model makes too few frames."""
    return F.pad(clips, (0, max(0, round(LEAST_SECONDS * SAMPLE_RATE) - clips.shape[1])))


def bridged(model: nn.Module) -> nn.Module:
    """The model, able to run here: ``muq`` 0.1.0 expects of the transformers library, as version 4 was, a conformer
    that returns the states of all its layers and chooses its attention by itself. Version 5 has neither."""
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder

    for encoder in [module for module in model.modules() if isinstance(module, Wav2Vec2ConformerEncoder)]:
        encoder.config._attn_implementation = "eager"
        encoder.forward = _Layers(encoder)
    return model


class _Layers:
    """A conformer's forward pass, with what went into each layer, and the result, as ``hidden_states``."""

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder, self.run = encoder, encoder.forward

    def __call__(self, hidden_states: Tensor, **options: Any) -> dict[str, Any]:
        options.pop("output_hidden_states", None)
        states: list[Tensor] = []

        def note(layer: nn.Module, arguments: tuple, named: dict[str, Any]) -> None:
            states.append(arguments[0] if arguments else named["hidden_states"])

        hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in self.encoder.layers]
        try:
            last = self.run(hidden_states, **options).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return {"last_hidden_state": last, "hidden_states": (*states, last)}
