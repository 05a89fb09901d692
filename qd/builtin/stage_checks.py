"""Checks that the configs of the stages share, so that a bad value is told before hours of work and not after them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qd.builtin.tokenizer import MAX_VOCABULARY, MIN_VOCABULARY
from qd.config.checks import bounded, one_of, positive, present_device
from qd.config.embedder import PRECISIONS
from qd.data.world.composer import MINIMUM_SECONDS


def fit_problems(config: Any, least_batch: int = 1) -> list[str]:
    """Of the values that every stage with a fit has.

    Args:
        config: of the stage.
        least_batch: the smallest batch from which the loss can be taken.
    """
    problems = [
        *bounded("seed", config.seed, 0),
        *bounded("batch_size", config.batch_size, least_batch),
        *bounded("max_steps", config.max_steps, 1),
        *positive("learning_rate", config.learning_rate),
        *bounded("checkpoint_every", config.checkpoint_every, 1),
        *one_of("precision", config.precision, PRECISIONS),
        *present_device("device", config.device),
    ]
    if not 0 <= config.warmup_steps < max(1, config.max_steps):
        problems.append(
            f"warmup_steps is {config.warmup_steps}; expected 0 or more, and less than max_steps={config.max_steps}"
        )
    return problems


def clip_length(path: str, seconds: float) -> list[str]:
    """A clip that fits into every piece of the built-in world."""
    if 0 < seconds <= MINIMUM_SECONDS:
        return []
    return [f"{path} is {seconds}; expected more than 0 and at most {MINIMUM_SECONDS:g}, the length of a piece"]


def sizes(path: str, config: Any) -> list[str]:
    """Every whole number of a model's config is 1 or more."""
    values = {name: value for name, value in asdict(config).items() if isinstance(value, int)}
    return [problem for name, value in values.items() for problem in bounded(f"{path}.{name}", value, 1)]


def divides(path: str, part: int, whole_path: str, whole: int) -> list[str]:
    """Attention heads, which share a width evenly; sizes below 1 are :func:`sizes`' to tell."""
    if part < 1 or whole % part == 0:
        return []
    return [f"{path} is {part}; expected a divisor of {whole_path}={whole}"]


def vocabulary_size(path: str, vocabulary: int) -> list[str]:
    """As :func:`~qd.builtin.tokenizer.train_tokenizer` takes it."""
    if MIN_VOCABULARY <= vocabulary <= MAX_VOCABULARY:
        return []
    return [f"{path} is {vocabulary}; expected {MIN_VOCABULARY} (all bytes, 3 special tokens) to {MAX_VOCABULARY}"]
