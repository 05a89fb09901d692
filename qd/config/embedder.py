"""What ``make train-embedder`` can be told, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from qd.config.checks import bounded, folder_name, fraction, one_of, positive, present_device, present_devices
from qd.config.loggers import logger_problems
from qd.data.augmentation import needed_samples
from qd.data.world.world import BUILTIN, SAMPLE_RATE, SPLITS
from qd.models.embedders.audio_vit import AudioViTConfig
from qd.objectives.triplet import FALLBACKS, NEGATIVES

PRECISIONS = ("auto", "32-true", "bf16-mixed")
BUILTIN_SECONDS = 8.0
"""The longest clip of which two fit into the shortest built-in piece."""
RANGES = ("snr_db", "gain_db", "tempo", "pitch_semitones", "drums_snr_db")


@dataclass
class EmbedderDataConfig:
    """Where pairs come from, and how many."""

    source: str = BUILTIN
    """``builtin``, a folder, a manifest (.csv or .jsonl), or ``datasets:<hub name or folder>[:<split>]``."""
    streaming: bool = False
    """Of a ``datasets:`` source: go through it in order, without storing it."""
    validation_share: float = 0.05
    """Of the recordings of a source, held out by a hash of their names; the built-in world has splits instead."""
    max_bad_share: float = 0.1
    """Of the files looked at, bad ones above which the run stops."""
    batch_pairs: int = 64
    """Recordings an optimiser step, over all ranks; each gives two clips."""
    train_split: str = "embedder"
    """Of the built-in world, as the next one."""
    validation_split: str = "validation"
    validation_pairs: int = 256
    workers: int = 1
    """Loader processes; one batch waits in each."""


@dataclass
class AugmentationConfig:
    """Ranges of the random changes; each is drawn once a clip. See ``qd.data.augmentation``."""

    snr_db_min: float = 10.0
    snr_db_max: float = 50.0
    """Of white noise, in dB."""
    gain_db_min: float = -12.0
    gain_db_max: float = 6.0
    tempo_min: float = 0.8
    tempo_max: float = 1.25
    """Playing speed at the same pitch; 1 and 1 switch it off."""
    pitch_semitones_min: float = -3.0
    pitch_semitones_max: float = 3.0
    """At the same speed; 0 and 0 switch it off."""
    drums_share: float = 0.0
    """Of the clips that get a drum loop layered on."""
    drums_snr_db_min: float = 0.0
    drums_snr_db_max: float = 12.0
    """Power of the music over that of the drums, in dB."""


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
    gather: bool = True
    """Take negatives from all ranks, not only from the clip's own."""
    chunk_clips: int | None = None
    """Clips that a rank embeds at once, by cached gradients; null holds the activations of its whole batch."""


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
    devices: int = 1
    """Processes of data-parallel training: so many GPUs, or so many parts of the CPU."""
    precision: str = "auto"
    compile: bool = False
    """Run the model through torch.compile: slow to start, faster in a long run."""
    loggers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Names of ``qd.runs.loggers.LOGGERS``; an empty list logs nowhere."""
    logger_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each: ``{wandb: {project: music}}``."""
    log_every: int = 10
    validations: int = 4
    """One every ``max_steps // validations`` steps; the best step by held-out recall@1 is kept."""
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

    @property
    def train_samples(self) -> int:
        """Length of a training clip: what augmentation makes a clip of the model's length of."""
        return needed_samples(self.augmentation, self.model.clip_samples)

    def problems(self) -> list[str]:
        """Every invalid value, one sentence each; empty when the run can start."""
        return [
            *(f"model.{problem}" for problem in self.model.problems()),
            *self._data_problems(),
            *self._augmentation_problems(),
            *self._training_problems(),
            *self._batch_problems(),
        ]

    def _data_problems(self) -> Iterator[str]:
        data = self.data
        yield from bounded("data.batch_pairs", data.batch_pairs, 2)
        yield from bounded("data.validation_pairs", data.validation_pairs, 2)
        yield from bounded("data.workers", data.workers, 0)
        yield from fraction("data.validation_share", data.validation_share)
        yield from fraction("data.max_bad_share", data.max_bad_share)
        if data.source == BUILTIN:
            yield from self._builtin_problems()
        elif not data.source:
            yield "data.source is empty; expected builtin, a folder, a manifest or datasets:<name>"
        elif data.validation_share == 0:
            yield "data.validation_share is 0; expected more, because the best step is chosen by held-out recordings"
        if data.streaming and not data.source.startswith("datasets:"):
            yield f"data.streaming is for datasets:<name>; expected false with data.source={data.source!r}"

    def _builtin_problems(self) -> Iterator[str]:
        data = self.data
        yield from one_of("data.train_split", data.train_split, SPLITS)
        yield from one_of("data.validation_split", data.validation_split, SPLITS)
        if data.train_split == data.validation_split:
            yield f"data.validation_split is {data.validation_split!r}; expected another split than data.train_split"
        if self.model.sample_rate != SAMPLE_RATE:
            yield f"model.sample_rate is {self.model.sample_rate}; the built-in recordings are at {SAMPLE_RATE} Hz"
        lengths_known = not self.model.problems() and not list(self._augmentation_problems())
        if lengths_known and (seconds := self.train_samples / SAMPLE_RATE) > BUILTIN_SECONDS:
            yield (
                f"model.clip_seconds is {self.model.clip_seconds}, and augmentation makes such a clip of {seconds:.2f} "
                f"s; expected at most {BUILTIN_SECONDS:g} s, because two clips must fit into a built-in piece of 16 s"
            )

    def _augmentation_problems(self) -> Iterator[str]:
        augmentation = self.augmentation
        for kind in RANGES:
            low, high = getattr(augmentation, f"{kind}_min"), getattr(augmentation, f"{kind}_max")
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                yield f"augmentation.{kind}_min is {low}; expected at most augmentation.{kind}_max={high}, both finite"
        yield from positive("augmentation.tempo_min", augmentation.tempo_min)
        yield from _share("augmentation.drums_share", augmentation.drums_share)

    def _training_problems(self) -> Iterator[str]:
        objective, optimizer, trainer = self.objective, self.optimizer, self.trainer
        yield from folder_name("name", self.name)
        yield from bounded("seed", self.seed, 0)
        yield from _share("codec.share", self.codec.share)
        yield from positive("objective.margin", objective.margin)
        yield from one_of("objective.negatives", objective.negatives, NEGATIVES)
        yield from one_of("objective.fallback", objective.fallback, FALLBACKS)
        yield from positive("optimizer.learning_rate", optimizer.learning_rate)
        yield from bounded("optimizer.weight_decay", optimizer.weight_decay, 0)
        yield from bounded("optimizer.warmup_steps", optimizer.warmup_steps, 0)
        yield from positive("optimizer.gradient_clip", optimizer.gradient_clip)
        yield from bounded("trainer.max_steps", trainer.max_steps, 1)
        yield from present_device("trainer.device", trainer.device)
        yield from one_of("trainer.precision", trainer.precision, PRECISIONS)
        yield from logger_problems("trainer", trainer.loggers, trainer.logger_options)
        yield from bounded("trainer.log_every", trainer.log_every, 1)
        yield from bounded("trainer.validations", trainer.validations, 1)
        yield from bounded("trainer.checkpoint_every", trainer.checkpoint_every, 1)
        if optimizer.warmup_steps > trainer.max_steps:
            yield f"optimizer.warmup_steps is {optimizer.warmup_steps}; expected at most trainer.max_steps"

    def _batch_problems(self) -> Iterator[str]:
        """How a batch is shared among processes, and cut into chunks."""
        pairs, devices, chunk = self.data.batch_pairs, self.trainer.devices, self.objective.chunk_clips
        if chunk is not None:
            yield from bounded("objective.chunk_clips", chunk, 1)
        if devices < 1:
            yield f"trainer.devices is {devices}; expected 1 or more"
        elif pairs % devices:
            yield f"data.batch_pairs is {pairs}; expected a multiple of trainer.devices={devices}"
        elif devices > 1:
            yield from present_devices("trainer.devices", devices, self.trainer.device)


def _share(path: str, value: float) -> list[str]:
    """A number in [0, 1]."""
    return [] if 0 <= value <= 1 else [f"{path} is {value}; expected 0 or more, and at most 1"]
