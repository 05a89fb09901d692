"""The sampling settings that the transformers library applies to a saved checkpoint by default."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig

from qd.models.delay import delayed_steps
from qd.models.musicgen import MusicGen


def save_sampling_defaults(
    folder: str | Path, music: MusicGen, temperature: float, seconds: float, guidance_scale: float = 1.0
) -> None:
    """Writes a ``generation_config.json``, so that the library samples as in training or in the measurement.

    Without this file, the library keeps the base model's guidance, draws from the 50 likeliest tokens, and uses the
    tokenizer's pad token for the codes.

    Args:
        folder: Folder that ``music.save`` wrote, in either layout.
        music: The model in that folder.
        temperature: T.
        seconds: Length of a clip.
        guidance_scale: γ. The library guides against the unconditional input; it supports no negative prompt.
    """
    folder, lm = Path(folder), music.lm
    model_folder = folder / "decoder" if (folder / "decoder").is_dir() else folder
    settings = GenerationConfig.from_pretrained(model_folder)
    settings.update(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        guidance_scale=guidance_scale,
        max_length=None,
        max_new_tokens=delayed_steps(lm.codebooks, music.frames(seconds), lm.channels),
        decoder_start_token_id=lm.pad,
        bos_token_id=lm.pad,
        pad_token_id=lm.pad,
    )
    settings.save_pretrained(model_folder)
