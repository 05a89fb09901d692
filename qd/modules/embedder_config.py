"""What ``make train-embedder`` can be told, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from qd.builtin.world import SAMPLE_RATE, SPLITS
from qd.models.audio_vit import AudioViTConfig
from qd.objectives.triplet import FALLBACKS, NEGATIVES

PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass
class EmbedderDataConfig:
    """Where pairs come from, and how many."""

    batch_pairs: int = 64
    """Recordings an optimiser step, over all ranks; each gives two clips."""
    train_split: str = "embedder"
    validation_split: str = "validation"
    validation_pairs: int = 256
    workers: int = 1
    """Loader processes; one batch waits in each."""


@dataclass
class AugmentationConfig:
    """Ranges of the random changes, in dB."""

    snr_db_min: float = 10.0
    snr_db_max: float = 50.0
    gain_db_min: float = -12.0
    gain_db_max: float = 6.0


@dataclass
class CodecConfig:
    """The codec that a part of the clips passes through, because a policy's audio always does."""

    model: str | None = "base"
    """A model whose codec is used, or a codec folder; null trains and validates on raw audio alone."""
    share: float = 0.5
    """Of the clips of each batch."""


@dataclass
class TripletConfig:
    """See ``qd.objectives.triplet.semi_hard_triplet``."""

    margin: float = 0.2
    negatives: str = "all"
    fallback: str = "none"


@dataclass
class EmbedderOptimizerConfig:
    """AdamW; the learning rate rises linearly for ``warmup_steps`` and falls as a half cosine to 0 at ``max_steps``."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 30
    gradient_clip: float = 1.0


@dataclass
class EmbedderTrainerConfig:
    """Length of the run, and when it is looked at."""

    max_steps: int = 360
    device: str = "auto"
    precision: str = "auto"
    log_every: int = 10
    validations: int = 4
    """Evenly spread over the run, the last one at its end; the best step by held-out recall@1 is kept."""
    checkpoint_every: int = 30
    runs: str = "runs"


@dataclass
class EmbedderTrainConfig:
    """One embedder run."""

    name: str | None = None
    """Of the run folder; "embedder" and the time if null."""
    seed: int = 0
    model: AudioViTConfig = field(default_factory=AudioViTConfig)
    data: EmbedderDataConfig = field(default_factory=EmbedderDataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    objective: TripletConfig = field(default_factory=TripletConfig)
    optimizer: EmbedderOptimizerConfig = field(default_factory=EmbedderOptimizerConfig)
    trainer: EmbedderTrainerConfig = field(default_factory=EmbedderTrainerConfig)

    def problems(self) -> list[str]:
        """Every invalid value, one sentence each; empty when the run can start."""
        return [
            *(f"model.{problem}" for problem in self.model.problems()),
            *self._range_problems(),
            *self._choice_problems(),
            *self._relation_problems(),
        ]

    def _range_problems(self) -> Iterator[str]:
        """Numbers that are too small, or no numbers."""
        minima = {
            "seed": 0,
            "data.batch_pairs": 2,
            "data.validation_pairs": 2,
            "data.workers": 0,
            "codec.share": 0,
            "objective.margin": 1e-6,
            "optimizer.learning_rate": 1e-12,
            "optimizer.weight_decay": 0,
            "optimizer.warmup_steps": 0,
            "optimizer.gradient_clip": 1e-12,
            "trainer.max_steps": 1,
            "trainer.log_every": 1,
            "trainer.validations": 1,
            "trainer.checkpoint_every": 1,
        }
        for key, minimum in minima.items():
            value = self._value(key)
            if not math.isfinite(value) or value < minimum:
                yield f"{key}={value}: expected a number of at least {minimum:g}"

    def _choice_problems(self) -> Iterator[str]:
        """Words that mean nothing."""
        choices = {
            "data.train_split": tuple(SPLITS),
            "data.validation_split": tuple(SPLITS),
            "objective.negatives": NEGATIVES,
            "objective.fallback": FALLBACKS,
            "trainer.precision": PRECISIONS,
        }
        for key, allowed in choices.items():
            if (value := self._value(key)) not in allowed:
                yield f"{key}={value!r}: expected one of {', '.join(allowed)}"

    def _relation_problems(self) -> Iterator[str]:
        """Values that do not go together."""
        data, augmentation = self.data, self.augmentation
        if data.train_split == data.validation_split:
            yield f"data.validation_split={data.validation_split!r}: expected another split than data.train_split"
        if self.codec.share > 1:
            yield f"codec.share={self.codec.share}: expected at most 1"
        for kind in ("snr_db", "gain_db"):
            low, high = getattr(augmentation, f"{kind}_min"), getattr(augmentation, f"{kind}_max")
            if not low <= high:
                yield f"augmentation.{kind}_min={low}: expected at most augmentation.{kind}_max={high}"
        if self.optimizer.warmup_steps > self.trainer.max_steps:
            yield f"optimizer.warmup_steps={self.optimizer.warmup_steps}: expected at most trainer.max_steps"
        if self.model.sample_rate != SAMPLE_RATE:
            yield f"model.sample_rate={self.model.sample_rate}: the built-in recordings are at {SAMPLE_RATE} Hz"
        if self.model.clip_seconds > 8:
            yield f"model.clip_seconds={self.model.clip_seconds}: two clips must fit into a built-in piece of 16 s"

    def _value(self, key: str) -> Any:
        section, _, name = key.rpartition(".")
        return getattr(getattr(self, section) if section else self, name)
