"""Preference scores: a Bradley–Terry head on an audio embedder, shipped or trained by a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qd.audio.resample import resample
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.checkpoints.sizes import load_checked
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.models.embedders.loading import Embedder, load_embedder
from qd.schema.setting import setting
from qd.schema.stored import from_stored
from qd.scorers.folder import CONFIG, WEIGHTS, folder_version, read_config, save_scorer, tower_config
from qd.scorers.protocol import check_rows


@dataclass
class NamedEmbedder:
    """An embedder outside the scorer's folder: its name, and the fingerprint of the weights at the training."""

    name: str = setting("", "Name of the embedder.")
    fingerprint: str = setting("", "Fingerprint of its weights.")


@dataclass
class PreferenceConfig:
    """The embedder, the head's width, and the affine map of the score; by default 0.46 M parameters."""

    audio: AudioViTConfig | None = setting(
        lambda: tower_config(layers=3), "Shape of the scorer's own embedder; null: `embedder` names another one."
    )
    head_width: int = setting(128, "Width of the head's hidden layer.", ge=1, le=65_536)
    scale: float = setting(1.0, "Scale of the score; calibration replaces it.")
    offset: float = setting(0.0, "Offset of the score; calibration replaces it.")
    embedder: NamedEmbedder | None = setting(
        None, "Embedder that is stored elsewhere and has its own licence, such as CLAP."
    )


class PreferenceScorer(nn.Module):
    """Preference for a clip, independent of the prompt: scale · logit + offset.

    The logit belongs to a Bradley–Terry model, P(a ≻ b) = σ(logit(a) − logit(b)), in the role of the paper's User
    Preference score. It is the output of a small head on an audio embedder.

    Args:
        config: Settings of the scorer.
        audio: Embedder; if None, a new one of the shape ``config.audio``.

    Raises:
        ValueError: the config names an embedder, and ``audio`` is None.
    """

    name = "preference"

    def __init__(self, config: PreferenceConfig, audio: Embedder | None = None) -> None:
        super().__init__()
        if audio is None and config.audio is None:
            raise ValueError("the config has no audio embedder of its own: pass the one that it names")
        self.config, self.version = config, "unsaved"
        self.audio = AudioViT(config.audio) if audio is None else audio
        self.head = preference_head(self.audio.embedding_width, config.head_width)

    @classmethod
    def over(cls, embedder: Embedder, name: str, head_width: int) -> PreferenceScorer:
        """Creates a scorer with a new head on a frozen embedder.

        An :class:`AudioViT` becomes part of the scorer and of its folder; any other embedder is referred to by name.
        """
        if isinstance(embedder, AudioViT):
            return cls(PreferenceConfig(embedder.config, head_width), embedder)
        named = NamedEmbedder(name, fingerprint(embedder))
        return cls(PreferenceConfig(None, head_width, embedder=named), embedder)

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz; other rates are resampled."""
        return self.audio.sample_rate

    def logit(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Returns the score before its affine map, ``(batch,)``."""
        return self.head(self.audio(resample(audio, sample_rate, self.sample_rate))).squeeze(-1).float()

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Returns scores ``(batch,)``; the prompts are ignored."""
        check_rows(audio, prompts)
        return self.config.scale * self.logit(audio, sample_rate) + self.config.offset

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Writes ``config.json`` and ``model.safetensors`` (float16 if ``half``)."""
        save_scorer(folder, self.name, self.config, self._saved_part().state_dict(), half)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PreferenceScorer:
        """Loads the scorer in float32, frozen, in eval mode.

        Raises:
            ValueError: the folder holds no scorer, or the embedder that it names does not exist or has other weights.
        """
        folder = Path(folder)
        content = read_config(folder, cls.name)
        # A missing embedder is one that is stored elsewhere.
        config = from_stored(PreferenceConfig, {"audio": None, **content}, str(folder / CONFIG))
        audio = _same_embedder(config.embedder, folder) if config.embedder else None
        scorer = load_checked(lambda: cls(config, audio), folder / WEIGHTS, cls._saved_part)
        scorer.version = folder_version(folder)
        return scorer.eval().requires_grad_(False)

    def _saved_part(self) -> nn.Module:
        """Returns the modules in the scorer's folder: all of them, or only the head if the embedder is outside."""
        return nn.ModuleDict({"head": self.head}) if self.config.embedder else self


def preference_head(embedding_width: int, width: int) -> nn.Sequential:
    """Builds the head, embedding ``(batch, embedding_width)`` → logit ``(batch, 1)``: a norm and one hidden layer."""
    return nn.Sequential(
        nn.LayerNorm(embedding_width), nn.Linear(embedding_width, width), nn.GELU(), nn.Linear(width, 1)
    )


def _same_embedder(named: NamedEmbedder, folder: Path) -> Embedder:
    """Loads the embedder, and checks that the head was fitted on its weights."""
    try:
        embedder = load_embedder(named.name)
    except ValueError as error:
        raise ValueError(f"scorer folder {folder} was trained on an embedder that cannot be loaded: {error}") from None
    if (actual := fingerprint(embedder)) != named.fingerprint:
        raise ValueError(
            f"scorer folder {folder} was trained on the embedder {named.name!r} with weights "
            f"{named.fingerprint[:8]}, which now has {actual[:8]}: restore those weights, or train the scorer again"
        )
    return embedder
