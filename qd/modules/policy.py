"""The model that a run trains, as its config describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qd.models.lora import AdaptedLanguageModel
from qd.models.musicgen import MusicGen

if TYPE_CHECKING:
    from qd.config.policy import ModelConfig


def load_policy(config: ModelConfig, seed: int = 0) -> MusicGen:
    """The checkpoint, with its adapters where there are any. What is trained is float32, the text encoder ``dtype``.

    Args:
        config: which model, and how.
        seed: of the adapters.

    Raises:
        ValueError: it cannot be had, or cannot be adapted so.
    """
    music = MusicGen.load(config.name, revision=config.revision, offline=config.offline)
    music.text_encoder.to(getattr(torch, config.dtype))
    if config.lora:
        lora = config.lora
        music.adapt(lambda lm: AdaptedLanguageModel(lm, lora.rank, lora.alpha, lora.target_modules, seed))
    if config.gradient_checkpointing:
        music.lm.checkpoint_layers()
    return music
