"""``qd sample``: samples a few clips for one prompt, as WAV files and one picture of their spectrograms."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import torch

from qd.audio.files import spectrogram_png, write_audio
from qd.config.checks import bounded, folder_problems, positive, present_device
from qd.config.loading import ConfigError
from qd.config.policy import TEMPERATURE
from qd.data.world.captions import NEGATIVE_PROMPT
from qd.models.delay import delayed_steps
from qd.models.musicgen import MusicGen
from qd.models.sampling.finite import decode_finite
from qd.models.sampling.sampler import Sampler, counter_uniforms, sampling_problems
from qd.modules.budget.memory import check_sampling_memory
from qd.runs.atomic import added_files
from qd.runs.devices import resolve_device


def sample(
    model: str,
    prompt: str,
    *,
    n: int = 4,
    guidance: float = 1.0,
    negative_prompt: str | None = NEGATIVE_PROMPT,
    seconds: float = 4.0,
    temperature: float = TEMPERATURE,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    offline: bool = False,
) -> Path:
    """Writes ``n`` clips as ``sample-1.wav`` … and ``spectrograms.png``. Clip i depends only on the seed and i.

    Args:
        model: Any name for ``qd.models.checkpoints.resolver.resolve_model``.
        prompt: Description of the music.
        n: Number of clips.
        guidance: γ of Eq. 1, 0 or more; 1 is no guidance.
        negative_prompt: Negative prompt of the guidance; None or empty is unconditional.
        seconds: Length of a clip.
        temperature: T, above 0.
        top_k: Number of most likely tokens to sample from, 1 or more; None for all.
        top_p: Probability share of the most likely tokens to sample from, in (0, 1]; None for all.
        seed: Seed for token sampling.
        out: Folder for the files; ``runs/samples/<time>`` if None.
        device: Name for ``qd.runs.devices.resolve_device``.
        dtype: Type of the language model and the text encoder: float32, bfloat16 or float16.
        revision: Revision of a hub name; see ``MusicGen.load``.
        offline: Whether to use only downloaded models of the hub.

    Returns:
        The folder.

    Raises:
        ConfigError: Settings are out of range; the message lists all.
        ValueError: The model cannot be loaded, its scores are not finite, or the device cannot hold the clips.
    """
    folder = Path(out) if out else Path("runs") / "samples" / f"{datetime.now():%Y%m%d-%H%M%S}"
    problems = [*_problems(n, prompt, seconds, seed, device), *sampling_problems(temperature, guidance, top_k, top_p)]
    problems += folder_problems("out", folder)
    if problems:
        raise ConfigError(problems)
    where = resolve_device(device)
    music = MusicGen.load(model, getattr(torch, dtype), revision, offline)
    music.name = model
    lower = [*([f"n={n // 2}"] if n > 1 else []), "a shorter seconds"]
    lower += ["dtype=bfloat16"] if dtype == "float32" else []
    check_sampling_memory(music, where, rows=n, seconds=seconds, guided=guidance != 1.0, lower=lower)
    music.to(where)
    frames = music.frames(seconds)
    steps = delayed_steps(music.lm.codebooks, frames, music.lm.channels)
    uniforms = counter_uniforms(seed, 0, range(n), music.lm.codebooks, steps).to(music.device)
    sampled = Sampler(music.lm).sample(
        music.condition([prompt]).repeat_interleave(n),
        frames,
        temperature=temperature,
        uniforms=lambda step: uniforms[..., step],
        guidance_scale=guidance,
        negative=music.condition([negative_prompt]) if negative_prompt else None,
        top_k=top_k,
        top_p=top_p,
    )
    return _write(folder, decode_finite(music, sampled, channels=True), music.sample_rate, prompt)


def _problems(n: int, prompt: str, seconds: float, seed: int, device: str) -> list[str]:
    return [
        *([] if n >= 1 else [f"n is {n}; expected 1 sample or more"]),
        *([] if prompt.strip() else ["the prompt is empty; describe the music, for example 'calm piano'"]),
        *positive("seconds", seconds),
        *bounded("seed", seed, 0),
        *present_device("device", device),
    ]


def _write(folder: Path, audio: torch.Tensor, sample_rate: int, prompt: str) -> Path:
    """Writes clips ``(n, channels, samples)``; the picture shows the mean over channels."""
    names = [f"sample-{number}" for number in range(1, len(audio) + 1)]
    shortened = prompt if len(prompt) <= 80 else f"{prompt[:79]}…"
    titles = [f"{name}: {shortened}" for name in names]
    with added_files(folder) as temporary:
        for name, clip in zip(names, audio, strict=True):
            write_audio(temporary / f"{name}.wav", clip, sample_rate)
        spectrogram_png(temporary / "spectrograms.png", list(audio.mean(dim=1)), sample_rate, titles)
    return folder
