"""Measuring a policy: sample every prompt several times and listen with every instrument."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qd.evaluation.measurement import Measurement
from qd.evaluation.points import METRICS
from qd.metrics.diversity import cross_prompt_diversity, diversity
from qd.metrics.vendi import vendi_score
from qd.models.condition import Condition
from qd.models.delay import delayed_steps
from qd.models.embedder import Embedder
from qd.models.fingerprint import fingerprint
from qd.models.musicgen import LanguageModel, MusicGen
from qd.models.resample import resample
from qd.models.sampler import Sampler, counter_uniforms
from qd.objectives.diversity import pairwise_dissimilarity
from qd.scorers.protocol import Quality

EVALUATION_STREAM = 2**62
"""The step that evaluation hands to the counter: no training step reaches it, so no training draw is repeated."""


@dataclass(frozen=True)
class Instruments:
    """What listens: the two scorers, the reward's embedder, and the one that no reward hears."""

    quality: Quality
    embedder: Embedder
    heldout_embedder: Embedder

    @cached_property
    def description(self) -> str:
        """ω, names and versions in one line. Points of other instruments are never compared."""
        embedders = [f"embedder@{fingerprint(self.embedder)[:8]}", f"heldout@{fingerprint(self.heldout_embedder)[:8]}"]
        return " ".join([self.quality.description, *embedders])


@dataclass(frozen=True)
class Sampling:
    """How a policy is asked: temperature T, guidance γ, negative prompt (None is unconditional), clip length, seed."""

    temperature: float = 0.99
    guidance_scale: float = 1.0
    negative: str | None = None
    seconds: float = 4.0
    seed: int = 0


@torch.no_grad()
def evaluate_policy(
    music: MusicGen,
    prompts: Sequence[str],
    instruments: Instruments,
    sampling: Sampling,
    *,
    n_samples: int = 4,
    lm: LanguageModel | None = None,
    batch_rows: int = 32,
    audio_prompts: int = 4,
) -> Measurement:
    """Samples each of P prompts N = ``n_samples`` times and measures the generations.

    A generation depends on the seed and on its row alone: the values do not change with ``batch_rows`` (beyond
    rounding), and two policies measured with one seed are asked with the same random numbers.

    Args:
        music: text encoder and codec, and the policy unless ``lm`` is given.
        prompts: P texts.
        instruments: what listens.
        sampling: how the policy is asked.
        n_samples: N, at least 2.
        lm: the policy.
        batch_rows: sequences sampled and heard at once; a matter of memory.
        audio_prompts: of so many prompts, the first ones, the first sample's audio is kept.

    Raises:
        ValueError: fewer than 2 prompts or samples, or ``batch_rows`` below 1.
    """
    if len(prompts) < 2 or n_samples < 2 or batch_rows < 1:
        raise ValueError(
            f"{len(prompts)} prompts × {n_samples} samples, {batch_rows} rows at once: expected 2 prompts, 2 samples "
            "and 1 row or more"
        )
    start = time.perf_counter()
    condition = music.condition(prompts).repeat_interleave(n_samples)
    texts = [prompt for prompt in prompts for _ in range(n_samples)]
    heard: list[dict[str, Tensor]] = []
    kept: list[Tensor] = []
    for first in range(0, len(texts), batch_rows):
        rows = range(first, min(first + batch_rows, len(texts)))
        audio, entropy = generate(music, lm or music.lm, condition, rows, sampling)
        heard.append({"entropy": entropy, **_listen(instruments, audio, music.sample_rate, texts[first : rows.stop])})
        kept += [audio[row - first].cpu() for row in rows if row % n_samples == 0 and row < audio_prompts * n_samples]
    samples = {name: torch.cat([batch[name] for batch in heard]) for name in heard[0]}
    samples = {name: values.cpu().unflatten(0, (-1, n_samples)) for name, values in samples.items()}
    return Measurement(
        prompts=tuple(prompts),
        per_prompt=_per_prompt(samples),
        cross_prompt_bound=float(cross_prompt_diversity(samples["embedding"])),
        audio=torch.stack(kept).numpy() if kept else audio[:0].cpu().numpy(),
        sample_rate=music.sample_rate,
        seconds=time.perf_counter() - start,
    )


def generate(
    music: MusicGen, lm: LanguageModel, condition: Condition, rows: range, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Audio ``(rows, samples)`` and mean entropy per token ``(rows,)`` of some rows of ``condition``."""
    frames = music.frames(sampling.seconds)
    steps = delayed_steps(lm.codebooks, frames, lm.channels)
    uniforms = counter_uniforms(sampling.seed, EVALUATION_STREAM, rows, lm.codebooks, steps).to(music.device)
    sampled = Sampler(lm).sample(
        Condition(condition.states[rows.start : rows.stop], condition.mask[rows.start : rows.stop]),
        frames,
        temperature=sampling.temperature,
        uniforms=lambda step: uniforms[..., step],
        guidance_scale=sampling.guidance_scale,
        negative=None if sampling.negative is None else music.condition([sampling.negative]),
    )
    return music.decode(sampled.codes), sampled.entropy


def _listen(instruments: Instruments, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> dict[str, Tensor]:
    """What each instrument says of each clip: scores ``(rows,)`` and embeddings ``(rows, width)``."""
    quality = instruments.quality
    scorers = {"adherence": quality.adherence, "preference": quality.preference}
    embedders = {"embedding": instruments.embedder, "heldout_embedding": instruments.heldout_embedder}
    rates = {listener.sample_rate for listener in (*scorers.values(), *embedders.values())}
    heard = {rate: resample(audio, sample_rate, rate) for rate in rates}  # once for all that listen at a rate
    scores = {name: scorer(heard[scorer.sample_rate], scorer.sample_rate, prompts) for name, scorer in scorers.items()}
    return {
        "quality": quality.combine(**scores),
        **scores,
        **{name: embed(heard[embed.sample_rate]) for name, embed in embedders.items()},
    }


def _per_prompt(samples: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Each metric's values ``(prompts,)``, from scores ``(prompts, samples)`` and embeddings with their width."""
    samples = {name: values.double() for name, values in samples.items()}
    embeddings, heldout_embeddings = samples.pop("embedding"), samples.pop("heldout_embedding")
    values = {
        "diversity": diversity(embeddings),
        "diversity_heldout": diversity(heldout_embeddings),
        "vendi": vendi_score(1 - pairwise_dissimilarity(embeddings)),
        **{name: scores.mean(dim=1) for name, scores in samples.items()},
    }
    return {name: values[name].numpy() for name in METRICS}
