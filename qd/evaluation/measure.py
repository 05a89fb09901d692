"""Measures a policy: samples every prompt several times, and scores and embeds every clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from qd.audio import facets
from qd.audio.resample import resample
from qd.config.policy import TEMPERATURE
from qd.evaluation.fad_reference import FadReference
from qd.evaluation.measurement import Measurement
from qd.evaluation.per_prompt import facet_rows, per_prompt_metrics
from qd.metrics.diversity import cross_prompt_diversity
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.condition import Condition
from qd.models.delay import delayed_steps
from qd.models.embedders.loading import Embedder
from qd.models.language_model import LanguageModel
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler, counter_uniforms
from qd.runs.collective import gather_rows, rank, ranks
from qd.runs.step_record import StepRecord
from qd.scorers.protocol import Quality, Thresholds

EVALUATION_STREAM = 2**62
"""Step number for the random numbers of evaluation; no training step reaches it, so no training draw is repeated."""

AUDIO_SAMPLES = 2
"""Samples of a prompt whose audio is saved: two are enough to compare them by ear."""

WINDOWS = "windows"
"""Key of the embeddings for the Fréchet audio distance."""


@dataclass(frozen=True)
class EvaluationModels:
    """Models that measure a policy.

    Attributes:
        quality: Adherence and preference scorers.
        embedder: Embedder of the reward.
        eval_embedder: Embedder that no reward uses.
        fad: Reference recordings, if the Fréchet audio distance is measured.
        thresholds: Least scores of clips that count as clean, or as effective.
        facets: Whether musical facets are measured.
    """

    quality: Quality
    embedder: Embedder
    eval_embedder: Embedder
    fad: FadReference | None = None
    thresholds: Thresholds = Thresholds()
    facets: bool = False

    @cached_property
    def description(self) -> str:
        """ω, names, versions, unusual thresholds; points with different descriptions are not compared."""
        embedders = [f"embedder@{fingerprint(self.embedder)[:8]}", f"heldout@{fingerprint(self.eval_embedder)[:8]}"]
        return " ".join([self.quality.description, *embedders, *self.thresholds.unusual])


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of a policy.

    Attributes:
        temperature: T, above 0.
        guidance_scale: γ of Eq. 1; 1 is no guidance.
        negative: Negative prompt of the guidance; None is unconditional.
        seconds: Clip length.
        seed: Seed for token sampling.
    """

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

    A generation depends only on the seed and its row: the values do not change with ``eval_batch_size`` nor, beyond
    rounding, with the number of ranks, which share the prompts. Two policies measured with one seed use the same
    random numbers. Every rank returns the whole measurement.

    Args:
        music: Text encoder and codec, and the policy unless ``lm`` is given.
        prompts: P texts.
        evaluation_models: Scorers, embedders and reference recordings.
        sampling: Sampling settings.
        n_samples: N, at least 2.
        lm: The policy.
        eval_batch_size: Number of sequences sampled and scored at once; limited by memory.
        audio_prompts: Number of prompts, the first ones, for which the audio of the first :data:`AUDIO_SAMPLES`
            samples is saved.

    Raises:
        ValueError: There are fewer than 2 prompts or samples, or ``eval_batch_size`` is below 1.
    """
    if len(prompts) < 2 or n_samples < 2 or eval_batch_size < 1:
        raise ValueError(
            f"{len(prompts)} prompts × {n_samples} samples, {eval_batch_size} rows at once: expected 2 prompts, 2 "
            "samples and 1 row or more"
        )
    record = StepRecord()
    start = record.now(music.device)
    condition = music.condition(prompts)
    scored: list[dict[str, Tensor]] = []
    saved: list[Tensor] = []
    rows = [prompt * n_samples + sample for prompt in _rank_prompts(len(prompts)) for sample in range(n_samples)]
    for first in range(0, len(rows), eval_batch_size):
        batch = rows[first : first + eval_batch_size]
        texts = [prompts[row // n_samples] for row in batch]
        with record.stage("sampling", music.device):
            audio, entropy = generate(music, lm or music.lm, condition, batch, n_samples, sampling)
        scored.append({"entropy": entropy, **score_clips(evaluation_models, audio, music.sample_rate, texts)})
        saved += [clip for i, clip in enumerate(audio, start=first) if _is_saved(i, n_samples, audio_prompts)]
    samples = _gathered({name: torch.cat([part[name] for part in scored]) for name in scored[0]}, n_samples)
    samples = {name: values[: len(prompts)] for name, values in samples.items()}
    windows = samples.pop(WINDOWS, None)
    # All ranks save the same number of clips; the first prompts come first, however the prompts are shared.
    clips = gather_rows(torch.stack(saved)) if saved else audio[:0]
    clips = clips.reshape(-1, AUDIO_SAMPLES, audio.shape[-1])[:audio_prompts]
    return Measurement(
        prompts=tuple(prompts),
        per_prompt=per_prompt_metrics(samples, evaluation_models.thresholds),
        cross_prompt_bound=float(cross_prompt_diversity(samples["embedding"].double())),
        audio=clips[: len(prompts)].cpu().numpy(),
        sample_rate=music.sample_rate,
        fad=None if windows is None else evaluation_models.fad.distance(windows),
        seconds=record.now(music.device) - start,
        sampling_seconds=record.seconds["sampling"],
    )


def _is_saved(row: int, n_samples: int, audio_prompts: int) -> bool:
    """Whether the audio of a row of this rank is saved."""
    prompt, sample = divmod(row, n_samples)
    return prompt < audio_prompts and sample < AUDIO_SAMPLES


def _rank_prompts(prompts: int) -> list[int]:
    """Indices of the prompts of this rank.

    All ranks get the same number. The last ranks fill up with the first prompts; the caller drops these repetitions.
    """
    share = -(-prompts // ranks())
    return [(rank() * share + i) % prompts for i in range(share)]


def _gathered(samples: dict[str, Tensor], n_samples: int) -> dict[str, Tensor]:
    """Gathers the rows of all ranks as ``(prompts, samples, …)``, in one exchange."""
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
    """Returns audio ``(rows, samples)`` and mean entropy per token ``(rows,)``.

    Row i is sample i mod N of prompt i // N.
    """
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


def score_clips(
    evaluation_models: EvaluationModels, audio: Tensor, sample_rate: int, prompts: Sequence[str]
) -> dict[str, Tensor]:
    """Returns the scores ``(rows,)``, embeddings ``(rows, width)`` and, if measured, facets of each clip."""
    quality = evaluation_models.quality
    scorers = {"adherence": quality.adherence, "preference": quality.preference}
    embedders = {"embedding": evaluation_models.embedder, "heldout_embedding": evaluation_models.eval_embedder}
    rates = {model.sample_rate for model in (*scorers.values(), *embedders.values())}
    rates |= {facets.RATE} if evaluation_models.facets else set()
    resampled = {rate: resample(audio, sample_rate, rate) for rate in rates}
    scores = {
        name: scorer(resampled[scorer.sample_rate], scorer.sample_rate, prompts) for name, scorer in scorers.items()
    }
    return {
        "quality": quality.combine(**scores),
        **scores,
        **{name: embed(resampled[embed.sample_rate]) for name, embed in embedders.items()},
        **({WINDOWS: evaluation_models.fad.windows(audio, sample_rate)} if evaluation_models.fad else {}),
        **({"facets": facet_rows(resampled[facets.RATE])} if evaluation_models.facets else {}),
    }
