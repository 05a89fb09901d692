"""How the transformers library samples a saved checkpoint when it is told nothing else."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig

from qd.models.delay import delayed_steps
from qd.models.musicgen import MusicGen


def save_sampling_defaults(
    folder: str | Path, music: MusicGen, temperature: float, seconds: float, guidance_scale: float = 1.0
) -> None:
    """Makes a model be sampled as it was in training, or when it was measured.

    By itself the library would keep the guidance that the base model asks for, draw from the 50 likeliest tokens, and
    take the tokenizer's pad for the codes'.

    Args:
        folder: that ``music.save`` wrote, of either layout.
        music: what it holds.
        temperature: T.
        seconds: length of a clip.
        guidance_scale: γ; the library guides unconditionally, it knows no negative prompt.
    """
    folder, lm = Path(folder), music.lm
    place = folder / "decoder" if (folder / "decoder").is_dir() else folder
    settings = GenerationConfig.from_pretrained(place)
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
    settings.save_pretrained(place)
