"""What ``make train-embedder`` can be told, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from qd.builtin.world import SAMPLE_RATE, SPLITS
from qd.config_checks import bounded, folder_name, one_of, positive, present_device
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
class EmbedderCodecConfig:
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

    max_steps: int = 300
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
    codec: EmbedderCodecConfig = field(default_factory=EmbedderCodecConfig)
    objective: TripletConfig = field(default_factory=TripletConfig)
    optimizer: EmbedderOptimizerConfig = field(default_factory=EmbedderOptimizerConfig)
    trainer: EmbedderTrainerConfig = field(default_factory=EmbedderTrainerConfig)

    def problems(self) -> list[str]:
        """Every invalid value, one sentence each; empty when the run can start."""
        return [
            *(f"model.{problem}" for problem in self.model.problems()),
            *self._value_problems(),
            *self._relation_problems(),
        ]

    def _value_problems(self) -> list[str]:
        """Of single values: numbers out of their range, words that mean nothing."""
        data, objective, optimizer, trainer = self.data, self.objective, self.optimizer, self.trainer
        return [
            *folder_name("name", self.name),
            *bounded("seed", self.seed, 0),
            *bounded("data.batch_pairs", data.batch_pairs, 2),
            *one_of("data.train_split", data.train_split, SPLITS),
            *one_of("data.validation_split", data.validation_split, SPLITS),
            *bounded("data.validation_pairs", data.validation_pairs, 2),
            *bounded("data.workers", data.workers, 0),
            *bounded("codec.share", self.codec.share, 0),
            *positive("objective.margin", objective.margin),
            *one_of("objective.negatives", objective.negatives, NEGATIVES),
            *one_of("objective.fallback", objective.fallback, FALLBACKS),
            *positive("optimizer.learning_rate", optimizer.learning_rate),
            *bounded("optimizer.weight_decay", optimizer.weight_decay, 0),
            *bounded("optimizer.warmup_steps", optimizer.warmup_steps, 0),
            *positive("optimizer.gradient_clip", optimizer.gradient_clip),
            *bounded("trainer.max_steps", trainer.max_steps, 1),
            *present_device("trainer.device", trainer.device),
            *one_of("trainer.precision", trainer.precision, PRECISIONS),
            *bounded("trainer.log_every", trainer.log_every, 1),
            *bounded("trainer.validations", trainer.validations, 1),
            *bounded("trainer.checkpoint_every", trainer.checkpoint_every, 1),
        ]

    def _relation_problems(self) -> Iterator[str]:
        """Values that do not go together."""
        data, augmentation = self.data, self.augmentation
        if data.train_split == data.validation_split:
            yield f"data.validation_split is {data.validation_split!r}; expected another split than data.train_split"
        if self.codec.share > 1:
            yield f"codec.share is {self.codec.share}; expected at most 1"
        for kind in ("snr_db", "gain_db"):
            low, high = getattr(augmentation, f"{kind}_min"), getattr(augmentation, f"{kind}_max")
            if not low <= high:
                yield f"augmentation.{kind}_min is {low}; expected at most augmentation.{kind}_max={high}"
        if self.optimizer.warmup_steps > self.trainer.max_steps:
            yield f"optimizer.warmup_steps is {self.optimizer.warmup_steps}; expected at most trainer.max_steps"
        if self.model.sample_rate != SAMPLE_RATE:
            yield f"model.sample_rate is {self.model.sample_rate}; the built-in recordings are at {SAMPLE_RATE} Hz"
        if self.model.clip_seconds > 8:
            yield f"model.clip_seconds is {self.model.clip_seconds}; two clips must fit into a piece of 16 s"
