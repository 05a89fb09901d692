"""Measures language models by one protocol, and shares the measurements of base models between runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from qd.config.policy import TEMPERATURE
from qd.config.protocols import Protocol
from qd.data.prompt_lengths import named_list, unreadable_lists
from qd.evaluation.columns import METRICS, OPTIONAL_METRICS
from qd.evaluation.measure import AUDIO_SAMPLES, EvaluationModels, Sampling, evaluate_policy
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import Point, content_key
from qd.metrics.frechet import MIN_SAMPLES
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.condition import text_too_long
from qd.models.language_model import LanguageModel
from qd.models.musicgen import MusicGen
from qd.runs.collective import gather_objects, rank
from qd.scorers.loading import load_quality
from qd.scorers.protocol import Quality

if TYPE_CHECKING:
    from qd.config.evaluation import ScoringConfig

LINE_BYTES = 4_000
VALUE_BYTES = 8
METRICS_OF_A_POINT = len(METRICS + OPTIONAL_METRICS)
PROMPT_BYTES = 400  # a prompt in an array of texts: 4 bytes a character, padded to the longest
PCM_BYTES = 2


@dataclass
class Evaluator:
    """Measures language models by one protocol with one set of scorers and embedders.

    Attributes:
        music: Text encoder, tokenizer and codec for all language models.
        evaluation_models: Scorers, embedders and reference recordings.
        protocol: Prompts, samples per prompt and clip length.
        temperature: T of the sampling.
        seed: Seed for token sampling.
        eval_batch_size: Number of sequences sampled and scored at once.
        audio_prompts: Number of prompts whose audio is saved.
    """

    music: MusicGen
    evaluation_models: EvaluationModels
    protocol: Protocol
    temperature: float = TEMPERATURE
    seed: int = 0
    eval_batch_size: int = 32
    audio_prompts: int = 4
    prompts: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.prompts = self.protocol.prompts()

    @property
    def clips(self) -> int:
        """Number of clips of a point."""
        return len(self.prompts) * self.protocol.n_samples

    @property
    def point_bytes(self) -> int:
        """Disk space of a point in bytes, at most: its line, its values for each prompt, and its audio."""
        prompts = len(self.prompts)
        clips = min(self.audio_prompts, prompts) * AUDIO_SAMPLES
        audio = clips * round(self.protocol.seconds * self.music.sample_rate) * PCM_BYTES
        return LINE_BYTES + audio + prompts * (METRICS_OF_A_POINT * VALUE_BYTES + PROMPT_BYTES)

    def seconds_per_clip(self, sampling: Sampling) -> float:
        """Measures one batch of the model twice, and returns the seconds per clip of the second time."""
        n_samples = self.protocol.n_samples
        prompts = self.prompts[: max(2, -(-self.eval_batch_size // n_samples))]
        models = replace(self.evaluation_models, fad=None)
        settings = {"n_samples": n_samples, "lm": self.music.lm, "eval_batch_size": self.eval_batch_size}
        for _ in range(2):  # the first time warms up
            began = time.perf_counter()
            evaluate_policy(self.music, prompts, models, sampling, **settings)
        return (time.perf_counter() - began) / (len(prompts) * n_samples)

    def problems(self, negatives: Iterable[str] = ()) -> list[str]:
        """Returns one sentence for each reason why the protocol cannot be measured.

        Args:
            negatives: Negative prompts.
        """
        tokenizer = self.music.tokenizer
        problems = unreadable_lists(named_list(self.protocol.prompts_file, self.protocol.n_prompts), tokenizer)
        lengths = [text_too_long(text, tokenizer) for text in negatives]
        problems += [f"negative_prompt has {problem}" for problem in lengths if problem]
        if self.evaluation_models.fad and self.clips < MIN_SAMPLES:
            problems.append(f"fad needs {MIN_SAMPLES} clips or more; the protocol has {self.clips}: use a larger one")
        return problems

    def sampling(self, guidance_scale: float = 1.0, negative: str | None = None) -> Sampling:
        """Returns the sampling settings of the protocol; without guidance there is no negative prompt."""
        negative = None if guidance_scale == 1.0 else negative
        return Sampling(self.temperature, guidance_scale, negative, self.protocol.seconds, self.seed)

    def key(self, lm: LanguageModel, sampling: Sampling) -> str:
        """Hash of everything that determines the measurement: weights, prompts, sampling, scorers; no names."""
        return self.key_of(acting_fingerprint(lm), sampling)

    def key_of(self, weights: str, sampling: Sampling) -> str:
        """:meth:`key` of a language model with a known fingerprint."""
        settings = (self.prompts, self.protocol.n_samples, sampling, self.evaluation_models.description)
        return measurement_key(weights, self._frozen, *settings)

    def measure(self, lm: LanguageModel, sampling: Sampling) -> Measurement:
        """Measures the policy ``lm``."""
        with lm.merged() as acting:  # once for all batches
            return evaluate_policy(
                self.music,
                self.prompts,
                self.evaluation_models,
                sampling,
                n_samples=self.protocol.n_samples,
                lm=acting,
                eval_batch_size=self.eval_batch_size,
                audio_prompts=self.audio_prompts,
            )

    def recall(self, folder: Path, key: str, lm: LanguageModel, sampling: Sampling) -> Measurement:
        """:meth:`measure`, but once for all runs that share ``folder``, where the file is named by the :meth:`key`.

        A measurement that was saved with less audio than this evaluator needs, or without facets that it needs, is made
        again.
        """
        path = folder / f"{key}.npz"
        clips = min(self.audio_prompts, len(self.prompts))
        saved = Measurement.load(path) if path.is_file() else None
        suffices = saved and len(saved.audio) >= clips and (saved.has_facets or not self.evaluation_models.facets)
        # The first rank decides: another one may look later, when the file exists.
        (known, *_) = gather_objects(bool(suffices))
        measurement = Measurement.load(path) if known else self.measure(lm, sampling)
        if not known and rank() == 0:
            measurement.save(path)
        return replace(measurement, audio=measurement.audio[:clips])

    def point(
        self,
        measurement: Measurement,
        key: str,
        sampling: Sampling,
        *,
        run: str,
        model: str,
        step: int = 0,
        beta: float | None = None,
        lam: float | None = None,
        series: str = "",
    ) -> Point:
        """Returns the measurement with this :meth:`key` as a line of ``points.jsonl``."""
        fad = measurement.fad
        return Point(
            key=key,
            run=run,
            model=model,
            step=step,
            beta=beta,
            guidance_scale=sampling.guidance_scale,
            negative=sampling.negative,
            temperature=sampling.temperature,
            lam=lam,
            seed=sampling.seed,
            protocol=self.protocol.id,
            scorers=self.evaluation_models.description,
            n_prompts=len(self.prompts),
            n_samples=self.protocol.n_samples,
            metrics=measurement.intervals(),
            seconds=measurement.seconds,
            series=series,
            fad=fad.distance if fad else None,
            fad_infinite=fad.infinite if fad else None,
            fad_reference=fad.reference if fad else "",
            kad=fad.kernel if fad else None,
        )

    @cached_property
    def _frozen(self) -> str:
        return frozen_fingerprint(self.music)


def acting_fingerprint(lm: LanguageModel) -> str:
    """Fingerprint of the weights that act: LoRA adapters are merged into them."""
    with lm.merged() as acting:
        return fingerprint(acting)


def measurement_key(
    weights: str, frozen: str, prompts: Sequence[str], n_samples: int, sampling: Sampling, evaluation_models: str
) -> str:
    """Hash of a measurement.

    Args:
        weights: Fingerprint of the language model.
        frozen: Fingerprint of text encoder and codec.
        prompts: P prompts.
        n_samples: N, samples per prompt.
        sampling: Sampling settings.
        evaluation_models: Description of scorers and embedders.
    """
    return content_key(
        {
            "lm": weights,
            "frozen": frozen,
            "prompts": list(prompts),
            "n_samples": n_samples,
            "sampling": asdict(sampling),
            "instruments": evaluation_models,
        }
    )


def frozen_fingerprint(music: MusicGen) -> str:
    """Fingerprint of text encoder and codec."""
    return fingerprint(music.text_encoder) + fingerprint(music.codec)


def build_evaluator(
    settings: ScoringConfig,
    music: MusicGen,
    evaluation_models: EvaluationModels,
    *,
    seconds: float,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Evaluator:
    """Returns an evaluator with the protocol of the settings, for clips of ``seconds``."""
    protocol = settings.protocol_for(seconds)
    return Evaluator(
        music, evaluation_models, protocol, temperature, seed, settings.eval_batch_size, settings.audio_prompts
    )


def load_scorers(settings: ScoringConfig, device: torch.device) -> Quality:
    """Loads the two scorers of the settings onto the device."""
    scorers = load_quality(settings.adherence, settings.preference, settings.adherence_weight)
    for scorer in (scorers.adherence, scorers.preference):
        if isinstance(scorer, nn.Module):
            scorer.to(device)
    return scorers
