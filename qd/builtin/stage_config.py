"""Settings and checks that the pretraining stages share, so that a bad value is reported before hours of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qd.builtin.calibration import CALIBRATION_CLIPS
from qd.builtin.tokenizer import MAX_VOCABULARY, MIN_VOCABULARY
from qd.config.checks import present_device
from qd.config.trainer import CHECKPOINT_MINUTES_HELP, DEVICE_HELP, PRECISIONS
from qd.data.world.composer import MINIMUM_SECONDS
from qd.data.worlds import EDITIONS
from qd.schema.checker import Settings
from qd.schema.setting import setting

CLIP_LIMITS = {
    "unit": "s",
    "gt": 0,
    "le": MINIMUM_SECONDS,
    "reason": "the shortest piece of the built-in world is that long",
}
"""Limits of the length of a clip, which must fit into every piece of the built-in world."""


@dataclass
class StageConfig(Settings):
    """Settings of every stage that trains a model."""

    seed: int = setting(0, "Seed of the weights and the data; `seed` of the build is added.", ge=0)
    world: int = setting(1, "Edition of the built-in world; `world` of the build replaces it.", ge=1, le=len(EDITIONS))
    batch_size: int = setting(16, "Examples per optimiser step.", ge=1)
    max_steps: int = setting(1000, "Number of optimiser steps.", unit="steps", ge=1)
    learning_rate: float = setting(1e-3, "Peak learning rate.", gt=0)
    warmup_steps: int = setting(50, "Length of the linear warm-up, less than max_steps.", unit="steps", ge=0)
    checkpoint_every: int = setting(250, "Interval between writes of last.ckpt.", unit="steps", ge=1)
    checkpoint_minutes: float = setting(5.0, CHECKPOINT_MINUTES_HELP, unit="min", gt=0)
    precision: str = setting(
        "auto", "Number format; auto: bf16-mixed where the device is fast at it.", choices=PRECISIONS
    )
    device: str = setting("auto", DEVICE_HELP)

    def rules(self, prefix: str) -> Iterator[str]:
        yield from present_device(f"{prefix}device", self.device)
        if self.warmup_steps >= max(1, self.max_steps):
            yield f"{prefix}warmup_steps is {self.warmup_steps}; expected less than max_steps={self.max_steps}"


@dataclass
class ScorerStageConfig(StageConfig):
    """Settings of the stages that train a scorer."""

    codec: str = setting("base", "Folder of the codec, or a model with a codec.", path=True)
    seconds: float = setting(4.0, "Length of a clip.", **CLIP_LIMITS)
    clips: int = setting(8_192, "Number of training clips, rendered once.", ge=1)
    validation_clips: int = setting(1_024, 'Number of clips of the split "validation", for the card\'s metrics.', ge=4)
    calibration_clips: int = setting(
        CALIBRATION_CLIPS, 'Number of clips of the split "calibration", which set the scale.', ge=2
    )
    weight_decay: float = setting(0.1, "Weight decay.", ge=0)
    workers: int = setting(2, "Number of processes that render clips.", ge=0)
    checkpoint_every: int = 100
    precision: str = "32-true"


def divisor_problems(path: str, part: int, whole_path: str, whole: int) -> list[str]:
    """One sentence if ``part`` attention heads cannot share ``whole`` evenly; a part below 1 is another problem."""
    if part < 1 or whole % part == 0:
        return []
    return [f"{path} is {part}; expected a divisor of {whole_path}={whole}"]


def vocabulary_problems(path: str, vocabulary: int) -> list[str]:
    """One sentence if :func:`~qd.builtin.tokenizer.train_tokenizer` does not accept this size."""
    if MIN_VOCABULARY <= vocabulary <= MAX_VOCABULARY:
        return []
    return [f"{path} is {vocabulary}; expected {MIN_VOCABULARY} (all bytes, 3 special tokens) to {MAX_VOCABULARY}"]
