"""A listener's preference: a Bradley–Terry head over an audio embedder, the shipped one or one that a user trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qd.audio.resample import resample
from qd.config.schema.setting import setting
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.models.embedders.loading import Embedder, load_embedder
from qd.scorers.folder import load_weights, read_config, save_scorer, tower_config
from qd.scorers.protocol import check_rows


@dataclass
class NamedEmbedder:
    """An embedder that the scorer's folder does not hold: its name, and the fingerprint of the weights that the head
    was fitted on."""

    name: str = setting("", "Name of the embedder.")
    fingerprint: str = setting("", "Fingerprint of its weights.")


@dataclass
class PreferenceConfig:
    """The embedder, the head's width, and the affine map of the score; by default 0.46 M parameters."""

    audio: AudioViTConfig | None = setting(
        lambda: tower_config(layers=3), "Shape of the scorer's own embedder; null: `embedder` names another one."
    )
    head_width: int = setting(128, "Width of the head's hidden layer.", ge=1)
    scale: float = setting(1.0, "Scale of the score; calibration replaces it.")
    offset: float = setting(0.0, "Offset of the score; calibration replaces it.")
    embedder: NamedEmbedder | None = setting(
        None, "Embedder that is stored elsewhere and has its own licence, such as CLAP."
    )


class PreferenceScorer(nn.Module):
    """How much a listener likes the audio, whatever the prompt: scale · logit + offset.

    The logit of a Bradley–Terry model, P(a ≻ b) = σ(logit(a) − logit(b)), in the role of the User Preference score. It
    is a small head over an audio embedder.

    Args:
        config: of the scorer.
        audio: the embedder; a new one of the shape ``config.audio`` if None.

    Raises:
        ValueError: the config names an embedder, and none is given.
    """

    name = "preference"

    def __init__(self, config: PreferenceConfig, audio: Embedder | None = None) -> None:
        super().__init__()
        if audio is None and config.audio is None:
            raise ValueError("the config has no audio embedder of its own: give the one that it names")
        self.config, self.version = config, "unsaved"
        self.audio = AudioViT(config.audio) if audio is None else audio
        self.head = preference_head(self.audio.embedding_width, config.head_width)

    @classmethod
    def over(cls, embedder: Embedder, name: str, head_width: int) -> PreferenceScorer:
        """A new head over a frozen embedder. An :class:`AudioViT` becomes part of the scorer and of the folder that it
        is saved to; any other stays where it is, and is named."""
        if isinstance(embedder, AudioViT):
            return cls(PreferenceConfig(embedder.config, head_width), embedder)
        named = NamedEmbedder(name, fingerprint(embedder))
        return cls(PreferenceConfig(None, head_width, embedder=named), embedder)

    @property
    def sample_rate(self) -> int:
        """In Hz; other rates are resampled."""
        return self.audio.sample_rate

    def logit(self, audio: Tensor, sample_rate: int) -> Tensor:
        """The score before its affine map, ``(batch,)``."""
        return self.head(self.audio(resample(audio, sample_rate, self.sample_rate))).squeeze(-1).float()

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Scores ``(batch,)``; the prompts are not looked at."""
        check_rows(audio, prompts)
        return self.config.scale * self.logit(audio, sample_rate) + self.config.offset

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Writes ``config.json`` and ``model.safetensors`` (float16 if ``half``)."""
        save_scorer(folder, self.name, self.config, self._kept().state_dict(), half)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PreferenceScorer:
        """The saved scorer, float32, frozen, in eval mode.

        Raises:
            ValueError: the folder holds none, or the embedder that it names is not there or has other weights now.
        """
        folder = Path(folder)
        content = read_config(folder, cls.name)
        own, named = content.pop("audio", None), content.pop("embedder", None)
        config = PreferenceConfig(
            AudioViTConfig(**own) if own else None, embedder=NamedEmbedder(**named) if named else None, **content
        )
        scorer = cls(config, _same_embedder(config.embedder, folder) if config.embedder else None)
        scorer.version = load_weights(scorer._kept(), folder)
        return scorer.eval().requires_grad_(False)

    def _kept(self) -> nn.Module:
        """What the folder holds: everything, or all but the embedder that is named."""
        return nn.ModuleDict({"head": self.head}) if self.config.embedder else self


def preference_head(embedding_width: int, width: int) -> nn.Sequential:
    """Embedding ``(batch, embedding_width)`` → logit ``(batch, 1)``: normalisation, and one hidden layer."""
    return nn.Sequential(
        nn.LayerNorm(embedding_width), nn.Linear(embedding_width, width), nn.GELU(), nn.Linear(width, 1)
    )


def _same_embedder(named: NamedEmbedder, folder: Path) -> Embedder:
    """The embedder of that name, if its weights are the ones that the head was fitted on."""
    try:
        embedder = load_embedder(named.name)
    except ValueError as error:
        raise ValueError(
            f"scorer folder {folder} was trained over an embedder that cannot be loaded: {error}"
        ) from None
    if (found := fingerprint(embedder)) != named.fingerprint:
        raise ValueError(
            f"scorer folder {folder} was trained over the embedder {named.name!r} with weights "
            f"{named.fingerprint[:8]}, which now has {found[:8]}: restore those weights, or train the head anew"
        )
    return embedder
