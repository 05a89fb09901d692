"""Measuring a policy: sample every prompt several times and listen with every instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qd.audio.resample import resample
from qd.config.policy import TEMPERATURE
from qd.evaluation.fad_reference import FadReference
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import METRICS
from qd.metrics.diversity import cross_prompt_diversity, diversity
from qd.metrics.vendi import vendi_score
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.condition import Condition
from qd.models.delay import delayed_steps
from qd.models.embedders.loading import Embedder
from qd.models.language_model import LanguageModel
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler, counter_uniforms
from qd.objectives.diversity import pairwise_dissimilarity
from qd.runs.collective import gather_rows, rank, ranks
from qd.runs.step_record import StepRecord
from qd.scorers.protocol import Quality

EVALUATION_STREAM = 2**62
"""The step that evaluation hands to the counter: no training step reaches it, so no training draw is repeated."""

AUDIO_SAMPLES = 2
"""Samples of a prompt whose audio is kept: as few as let one hear whether they are alike."""

WINDOWS = "windows"
"""What is kept of each clip for the Fréchet audio distance, beside its scores and embeddings."""


@dataclass(frozen=True)
class EvaluationModels:
    """What listens: the two scorers, the reward's embedder, and the one that no reward hears; and recordings, where the
    Fréchet audio distance to them is wanted."""

    quality: Quality
    embedder: Embedder
    eval_embedder: Embedder
    fad: FadReference | None = None

    @cached_property
    def description(self) -> str:
        """ω, names and versions in one line. Points of other scorers or embedders are not compared."""
        embedders = [f"embedder@{fingerprint(self.embedder)[:8]}", f"heldout@{fingerprint(self.eval_embedder)[:8]}"]
        return " ".join([self.quality.description, *embedders])


@dataclass(frozen=True)
class Sampling:
    """How a policy is asked: temperature T, guidance γ, negative prompt (None is unconditional), clip length, seed."""

    temperature: float = TEMPERATURE
    guidance_scale: float = 1.0
    negative: str | None = None
    seconds: float = 4.0
    seed: int = 0


@torch.no_grad()
def evaluate_policy(
    music: MusicGen,
    prompts: Sequence[str],
    evaluation_models: EvaluationModels,
    sampling: Sampling,
    *,
    n_samples: int = 4,
    lm: LanguageModel | None = None,
    eval_batch_size: int = 32,
    audio_prompts: int = 4,
) -> Measurement:
    """Samples each of P prompts N = ``n_samples`` times and measures the generations.

    A generation depends on the seed and on its row alone: the values do not change with ``eval_batch_size``,
    nor, beyond rounding, with the number of ranks, which share the prompts. Two policies measured with one seed
    use the same random numbers. Every rank gets the whole measurement.

    Args:
        music: text encoder and codec, and the policy unless ``lm`` is given.
        prompts: P texts.
        evaluation_models: what listens.
        sampling: how the policy is asked.
        n_samples: N, at least 2.
        lm: the policy.
        eval_batch_size: sequences sampled and heard at once; a matter of memory.
        audio_prompts: of so many prompts, the first ones, the audio of the first :data:`AUDIO_SAMPLES` samples is kept.

    Raises:
        ValueError: fewer than 2 prompts or samples, or ``eval_batch_size`` below 1.
    """
    if len(prompts) < 2 or n_samples < 2 or eval_batch_size < 1:
        raise ValueError(
            f"{len(prompts)} prompts × {n_samples} samples, {eval_batch_size} rows at once: expected 2 prompts, 2 "
            "samples and 1 row or more"
        )
    record = StepRecord()
    start = record.now(music.device)
    condition = music.condition(prompts)
    own = _own(len(prompts))
    heard: list[dict[str, Tensor]] = []
    kept: list[Tensor] = []
    rows = [prompt * n_samples + sample for prompt in own for sample in range(n_samples)]
    for first in range(0, len(rows), eval_batch_size):
        batch = rows[first : first + eval_batch_size]
        texts = [prompts[row // n_samples] for row in batch]
        with record.stage("sampling", music.device):
            audio, entropy = generate(music, lm or music.lm, condition, batch, n_samples, sampling)
        heard.append({"entropy": entropy, **_listen(evaluation_models, audio, music.sample_rate, texts)})
        kept += [clip for i, clip in enumerate(audio, start=first) if _is_kept(i, n_samples, audio_prompts)]
    samples = _gathered({name: torch.cat([part[name] for part in heard]) for name in heard[0]}, n_samples)
    samples = {name: values[: len(prompts)] for name, values in samples.items()}
    windows = samples.pop(WINDOWS, None)
    # Each rank keeps as many; those of the first prompts come first, however the prompts are shared.
    clips = gather_rows(torch.stack(kept)) if kept else audio[:0]
    clips = clips.reshape(-1, AUDIO_SAMPLES, audio.shape[-1])[:audio_prompts]
    return Measurement(
        prompts=tuple(prompts),
        per_prompt=_per_prompt(samples),
        cross_prompt_bound=float(cross_prompt_diversity(samples["embedding"].double())),
        audio=clips[: len(prompts)].cpu().numpy(),
        sample_rate=music.sample_rate,
        fad=None if windows is None else evaluation_models.fad.distance(windows),
        seconds=record.now(music.device) - start,
        sampling_seconds=record.seconds["sampling"],
    )


def _is_kept(row: int, n_samples: int, audio_prompts: int) -> bool:
    """Whether the audio of a rank's row is kept: by the place of its prompt among the rank's, and of it among the
    prompt's samples."""
    prompt, sample = divmod(row, n_samples)
    return prompt < audio_prompts and sample < AUDIO_SAMPLES


def _own(prompts: int) -> list[int]:
    """The prompts of this rank: as many as each of the others has, in turn, the last ones going over to the first
    prompts again. What is heard twice so is dropped; no rank could have ended sooner."""
    share = -(-prompts // ranks())
    return [(rank() * share + i) % prompts for i in range(share)]


def _gathered(samples: dict[str, Tensor], n_samples: int) -> dict[str, Tensor]:
    """``(prompts, samples, …)`` of all ranks, from the rows of each, in one exchange."""
    table = torch.cat([values.float().reshape(len(values), -1) for values in samples.values()], dim=1)
    table = gather_rows(table).cpu().unflatten(0, (-1, n_samples))
    columns = table.split([values[0].numel() for values in samples.values()], dim=-1)
    return {
        name: part if values.ndim > 1 else part[..., 0]
        for (name, values), part in zip(samples.items(), columns, strict=True)
    }


def generate(
    music: MusicGen, lm: LanguageModel, prompts: Condition, rows: Sequence[int], n_samples: int, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Audio ``(rows, samples)`` and mean entropy per token ``(rows,)``; row i is sample i mod N of prompt i // N."""
    places = [row // n_samples for row in rows]
    frames = music.frames(sampling.seconds)
    steps = delayed_steps(lm.codebooks, frames, lm.channels)
    uniforms = counter_uniforms(sampling.seed, EVALUATION_STREAM, rows, lm.codebooks, steps).to(music.device)
    sampled = Sampler(lm).sample(
        Condition(prompts.states[places], prompts.mask[places]),
        frames,
        temperature=sampling.temperature,
        uniforms=lambda step: uniforms[..., step],
        guidance_scale=sampling.guidance_scale,
        negative=None if sampling.negative is None else music.condition([sampling.negative]),
    )
    return music.decode(sampled.codes), sampled.entropy


def _listen(
    evaluation_models: EvaluationModels, audio: Tensor, sample_rate: int, prompts: Sequence[str]
) -> dict[str, Tensor]:
    """What each instrument says of each clip: scores ``(rows,)``, embeddings ``(rows, width)`` and their like."""
    quality = evaluation_models.quality
    scorers = {"adherence": quality.adherence, "preference": quality.preference}
    embedders = {"embedding": evaluation_models.embedder, "heldout_embedding": evaluation_models.eval_embedder}
    rates = {listener.sample_rate for listener in (*scorers.values(), *embedders.values())}
    heard = {rate: resample(audio, sample_rate, rate) for rate in rates}  # once for all that listen at a rate
    scores = {name: scorer(heard[scorer.sample_rate], scorer.sample_rate, prompts) for name, scorer in scorers.items()}
    return {
        "quality": quality.combine(**scores),
        **scores,
        **{name: embed(heard[embed.sample_rate]) for name, embed in embedders.items()},
        **({WINDOWS: evaluation_models.fad.windows(audio, sample_rate)} if evaluation_models.fad else {}),
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
