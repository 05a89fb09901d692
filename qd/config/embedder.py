"""The whole config of `qd train-embedder`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from qd.config.checks import folder_name, one_of
from qd.config.trainer import RunTrainerConfig
from qd.data.augmentation import needed_samples
from qd.data.world.world import BUILTIN, SAMPLE_RATE, SPLITS
from qd.data.worlds import EDITIONS
from qd.models.embedders.audio_vit import AudioViTConfig
from qd.objectives.triplet import FALLBACKS, NEGATIVES
from qd.schema.checker import Settings
from qd.schema.setting import setting

BUILTIN_SECONDS = 8.0
"""The longest clip of which two fit into the shortest built-in piece."""
RANGES = ("snr_db", "gain_db", "tempo", "pitch_semitones", "drums_snr_db", "room_seconds", "room_db", "low_pass_hz",
          "high_pass_hz")  # fmt: skip


@dataclass
class EmbedderDataConfig(Settings):
    """Recordings, and the pairs of clips made of them."""

    source: str = setting(
        BUILTIN,
        "Recordings: builtin, a folder, a manifest (.csv, .tsv or .jsonl), or datasets:<hub name or folder>[:<split>].",
        nonempty=True,
        path=True,
    )
    streaming: bool = setting(False, "Whether a datasets: source is read in order, without storing it.")
    validation_share: float = setting(
        0.05,
        "Share of the recordings that is held out, by a hash of their names; the built-in world has splits instead.",
        ge=0,
        lt=1,
    )
    max_bad_share: float = setting(0.1, "Share of bad files above which the run stops.", ge=0, lt=1)
    batch_pairs: int = setting(
        64, "Recordings per optimiser step, over all ranks; each gives two clips.", unit="recordings", ge=2
    )
    world: int = setting(1, "Edition of the built-in world.", ge=1, le=len(EDITIONS))
    train_split: str = setting("embedder", "Training split of the built-in world.")
    validation_split: str = setting("validation", "Validation split of the built-in world.")
    validation_pairs: int = setting(256, "Number of held-out recordings of a validation.", ge=2)
    workers: int = setting(1, "Number of loader processes; each holds one batch in memory.", ge=0)

    def rules(self, prefix: str) -> Iterator[str]:
        if self.source == BUILTIN:
            yield from one_of(f"{prefix}train_split", self.train_split, SPLITS)
            yield from one_of(f"{prefix}validation_split", self.validation_split, SPLITS)
            if self.train_split == self.validation_split:
                yield f"{prefix}validation_split is {self.validation_split!r}; expected another split than train_split"
        elif self.source and self.validation_share == 0:
            yield f"{prefix}validation_share is 0; expected more, because held-out recordings choose the best step"
        if self.streaming and not self.source.startswith("datasets:"):
            yield f"{prefix}streaming needs datasets:<name>; expected false with {prefix}source={self.source!r}"


@dataclass
class AugmentationConfig(Settings):
    """Ranges of the random changes, drawn once a clip and made in this order: drums, room, equaliser, noise, low-pass,
    high-pass, gain; tempo and pitch come first. See ``qd.data.augmentation``."""

    snr_db_min: float = setting(10.0, "Lowest signal-to-noise ratio of the added white noise.", unit="dB")
    snr_db_max: float = setting(50.0, "Highest signal-to-noise ratio of the added white noise.", unit="dB")
    gain_db_min: float = setting(-12.0, "Lowest gain.", unit="dB")
    gain_db_max: float = setting(6.0, "Highest gain.", unit="dB")
    tempo_min: float = setting(0.8, "Lowest playing speed, at the same pitch.", gt=0)
    tempo_max: float = setting(1.25, "Highest playing speed; 1 and 1: no change of tempo.")
    pitch_semitones_min: float = setting(-3.0, "Lowest shift of pitch, at the same speed.", unit="semitones")
    pitch_semitones_max: float = setting(3.0, "Highest shift of pitch; 0 and 0: no shift.", unit="semitones")
    drums_share: float = setting(0.0, "Share of the clips that get an additional drum loop.", ge=0, le=1)
    drums_snr_db_min: float = setting(0.0, "Lowest power of the music relative to the drums.", unit="dB")
    drums_snr_db_max: float = setting(12.0, "Highest power of the music relative to the drums.", unit="dB")
    room_share: float = setting(0.0, "Share of the clips that sound in a room.", ge=0, le=1)
    room_seconds_min: float = setting(0.2, "Shortest reverberation time, to −60 dB.", unit="s", gt=0)
    room_seconds_max: float = setting(1.2, "Longest reverberation time.", unit="s", gt=0)
    room_db_min: float = setting(-20.0, "Lowest energy of the room relative to the direct sound.", unit="dB")
    room_db_max: float = setting(0.0, "Highest energy of the room relative to the direct sound.", unit="dB")
    equaliser_share: float = setting(0.0, "Share of the clips that get a random smooth gain curve.", ge=0, le=1)
    equaliser_db: float = setting(9.0, "Largest gain or loss of an octave of this curve.", unit="dB", ge=0)
    low_pass_share: float = setting(0.0, "Share of the clips that lose their high frequencies.", ge=0, le=1)
    low_pass_hz_min: float = setting(1000.0, "Lowest cut-off frequency of the low-pass.", unit="Hz", gt=0)
    low_pass_hz_max: float = setting(8000.0, "Highest cut-off frequency of the low-pass.", unit="Hz", gt=0)
    high_pass_share: float = setting(0.0, "Share of the clips that lose their low frequencies.", ge=0, le=1)
    high_pass_hz_min: float = setting(30.0, "Lowest cut-off frequency of the high-pass.", unit="Hz", gt=0)
    high_pass_hz_max: float = setting(300.0, "Highest cut-off frequency of the high-pass.", unit="Hz", gt=0)

    def rules(self, prefix: str) -> Iterator[str]:
        for kind in RANGES:
            low, high = getattr(self, f"{kind}_min"), getattr(self, f"{kind}_max")
            if math.isfinite(low) and math.isfinite(high) and low > high:
                yield f"{prefix}{kind}_min is {low}; expected at most {prefix}{kind}_max={high}"


@dataclass
class EmbedderCodecConfig(Settings):
    """The codec that some of the clips pass through, because a policy's audio always does."""

    model: str | None = setting(
        "base", "Model with the codec, or a codec folder; null: train and validate on raw audio only.", path=True
    )
    share: float = setting(0.5, "Share of the clips of each batch that pass through the codec.", ge=0, le=1)


@dataclass
class TripletConfig(Settings):
    """Semi-hard triplet loss; see ``qd.objectives.triplet``."""

    margin: float = setting(0.2, "Margin between squared distances of positive and negative pairs.", gt=0)
    negatives: str = setting("all", "Semi-hard negatives of each positive pair.", choices=NEGATIVES)
    fallback: str = setting("none", "Negative of a positive pair without a semi-hard one.", choices=FALLBACKS)
    gather: bool = setting(True, "Whether negatives come from all ranks instead of the clip's own rank only.")
    chunk_clips: int | None = setting(
        None,
        "Clips that a rank embeds at once, with cached gradients; null: its whole batch, activations in memory.",
        unit="clips",
        ge=1,
    )


@dataclass
class EmbedderOptimizerConfig(Settings):
    """AdamW; linear warm-up, then a half cosine to 0 at ``max_steps``."""

    learning_rate: float = setting(1e-3, "Peak learning rate.", gt=0)
    weight_decay: float = setting(0.01, "Weight decay.", ge=0)
    warmup_steps: int = setting(30, "Length of the linear warm-up.", unit="steps", ge=0)
    gradient_clip: float = setting(1.0, "Largest L2 norm of the gradient.", gt=0)


@dataclass
class EmbedderTrainerConfig(RunTrainerConfig):
    """Length, device, logging and checkpoints."""

    max_steps: int = 300
    checkpoint_every: int = 30
    compile: bool = setting(
        False, "Whether to run the model through torch.compile: slow to start, faster in a long run."
    )
    validations: int = setting(
        4,
        "Number of validations, one every max_steps // validations steps; the step of the best held-out recall@1 is "
        "saved.",
        ge=1,
    )


@dataclass
class EmbedderTrainConfig(Settings):
    """``qd train-embedder``: the embedder whose distances are the diversity reward."""

    name: str | None = setting(None, "Name of the run folder; null: embedder-<date>-<time>.")
    seed: int = setting(0, "Seed of the weights, the clips and their augmentation.", ge=0)
    model: AudioViTConfig = field(default_factory=AudioViTConfig)
    data: EmbedderDataConfig = field(default_factory=EmbedderDataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    codec: EmbedderCodecConfig = field(default_factory=EmbedderCodecConfig)
    objective: TripletConfig = field(default_factory=TripletConfig)
    optimizer: EmbedderOptimizerConfig = field(default_factory=EmbedderOptimizerConfig)
    trainer: EmbedderTrainerConfig = field(default_factory=EmbedderTrainerConfig)

    @property
    def train_samples(self) -> int:
        """Length in samples of a training clip before augmentation, which cuts it to the model's length."""
        return needed_samples(self.augmentation, self.model.clip_samples)

    def rules(self, prefix: str) -> Iterator[str]:
        optimizer, pairs, devices = self.optimizer, self.data.batch_pairs, self.trainer.devices
        yield from folder_name("name", self.name)
        yield from self._bandwidth_problems()
        if optimizer.warmup_steps > self.trainer.max_steps:
            yield f"optimizer.warmup_steps is {optimizer.warmup_steps}; expected at most trainer.max_steps"
        if devices > 0 and pairs % devices:
            yield f"data.batch_pairs is {pairs}; expected a multiple of trainer.devices={devices}"
        if self.data.source == BUILTIN:
            yield from self._builtin_problems()

    def _bandwidth_problems(self) -> Iterator[str]:
        """Whether the cut-off frequencies are frequencies that the audio has."""
        highest = self.model.sample_rate / 2
        for kind in ("low_pass", "high_pass"):
            cutoff, share = getattr(self.augmentation, f"{kind}_hz_max"), getattr(self.augmentation, f"{kind}_share")
            if share > 0 and cutoff > highest:
                yield (
                    f"augmentation.{kind}_hz_max is {cutoff}; expected at most {highest:g} Hz, half of "
                    f"model.sample_rate={self.model.sample_rate}"
                )

    def _builtin_problems(self) -> Iterator[str]:
        """Whether the built-in recordings have the model's sample rate and are long enough."""
        if self.model.sample_rate != SAMPLE_RATE:
            yield f"model.sample_rate is {self.model.sample_rate}; the built-in recordings are at {SAMPLE_RATE} Hz"
        lengths_known = not (self.model.problems() or self.augmentation.problems())
        if lengths_known and (seconds := self.train_samples / SAMPLE_RATE) > BUILTIN_SECONDS:
            yield (
                f"model.clip_seconds is {self.model.clip_seconds}, and augmentation needs {seconds:.2f} s for such a "
                f"clip; expected at most {BUILTIN_SECONDS:g} s, because a built-in piece of 16 s must hold two"
            )
