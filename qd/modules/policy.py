"""The model that a run trains, built from its config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qd.models.lora import AdaptedLanguageModel
from qd.models.musicgen import MusicGen

if TYPE_CHECKING:
    from qd.config.policy import ModelConfig


def load_policy(config: ModelConfig, seed: int = 0) -> MusicGen:
    """Loads the model to train, with adapters if the config has any.

    Trained weights are in float32, the text encoder in ``config.dtype``.

    Args:
        config: Name of the model, and how to load it.
        seed: Seed for the initial weights of the adapters.

    Raises:
        ValueError: If the model cannot be loaded, or does not support the requested adapters.
    """
    music = MusicGen.load(config.name, revision=config.revision, offline=config.offline)
    music.name = config.name
    music.text_encoder.to(getattr(torch, config.dtype))
    if config.lora:
        lora = config.lora
        music.adapt(lambda lm: AdaptedLanguageModel(lm, lora.rank, lora.alpha, lora.target_modules, seed))
    if config.gradient_checkpointing:
        music.lm.checkpoint_layers()
    return music
