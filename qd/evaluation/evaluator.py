"""The part of a measurement that stays the same during a run, and the reference points that runs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from qd.config.policy import TEMPERATURE
from qd.config.protocols import Protocol
from qd.evaluation.measure import EvaluationModels, Sampling, evaluate_policy
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import Point, content_key
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.language_model import LanguageModel
from qd.models.musicgen import MusicGen
from qd.runs.collective import gather_objects, rank
from qd.scorers.loading import load_quality
from qd.scorers.protocol import Quality

if TYPE_CHECKING:
    from qd.config.evaluation import ScoringConfig


@dataclass
class Evaluator:
    """Measures language models by one protocol with one set of scorers and embedders.

    Attributes:
        music: text encoder, tokenizer and codec of all the language models.
        evaluation_models: what listens.
        protocol: on which prompts, how many samples, how long.
        temperature: T of sampling. seed: of sampling.
        eval_batch_size: sequences held at once.
        audio_prompts: prompts whose audio is kept.
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

    def sampling(self, guidance_scale: float = 1.0, negative: str | None = None) -> Sampling:
        """How a policy is asked; without guidance there is no negative prompt."""
        negative = None if guidance_scale == 1.0 else negative
        return Sampling(self.temperature, guidance_scale, negative, self.protocol.seconds, self.seed)

    def key(self, lm: LanguageModel, sampling: Sampling) -> str:
        """Hash of all that makes the measurement: weights, prompts, sampling, scorers; no names, no batches."""
        return self.key_of(acting_fingerprint(lm), sampling)

    def key_of(self, weights: str, sampling: Sampling) -> str:
        """:meth:`key` of a language model whose fingerprint is known."""
        asked = (self.prompts, self.protocol.n_samples, sampling, self.evaluation_models.description)
        return measurement_key(weights, self._frozen, *asked)

    def measure(self, lm: LanguageModel, sampling: Sampling) -> Measurement:
        """The policy ``lm``, asked so."""
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

    def measure_batch(self, lm: LanguageModel, sampling: Sampling) -> int:
        """As many sequences as are held at once are sampled and heard, for the time that takes; returns how many."""
        samples = self.protocol.n_samples
        prompts = self.prompts[: max(2, -(-self.eval_batch_size // samples))]
        settings = {"n_samples": samples, "lm": lm, "eval_batch_size": self.eval_batch_size}
        evaluate_policy(self.music, prompts, replace(self.evaluation_models, fad=None), sampling, **settings)
        return len(prompts) * samples

    def recall(self, folder: Path, key: str, lm: LanguageModel, sampling: Sampling) -> Measurement:
        """As :meth:`measure`, but once for all runs that share ``folder``: there it is kept under its :meth:`key`.

        It is measured anew where the run that kept it wanted less audio.
        """
        path = folder / f"{key}.npz"
        audible = min(self.audio_prompts, len(self.prompts))
        # What one rank has found counts: another may come a moment later, when the file has appeared.
        (known, *_) = gather_objects(path.is_file() and len(Measurement.load(path).audio) >= audible)
        kept = Measurement.load(path) if known else self.measure(lm, sampling)
        if not known and rank() == 0:
            kept.save(path)
        return replace(kept, audio=kept.audio[:audible])

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
        """The measurement, of that :meth:`key`, as a line of ``points.jsonl``."""
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
        )

    @cached_property
    def _frozen(self) -> str:
        return frozen_fingerprint(self.music)


def acting_fingerprint(lm: LanguageModel) -> str:
    """Of the weights that act: with the adapters of a LoRA merged into them."""
    with lm.merged() as acting:
        return fingerprint(acting)


def measurement_key(
    weights: str, frozen: str, prompts: Sequence[str], n_samples: int, sampling: Sampling, evaluation_models: str
) -> str:
    """Of what is measured: fingerprints of a language model and of the frozen parts; and of how."""
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
    """Of text encoder and codec."""
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
    """What the settings ask for: their protocol, with clips of ``seconds``."""
    protocol = settings.protocol_for(seconds)
    return Evaluator(
        music, evaluation_models, protocol, temperature, seed, settings.eval_batch_size, settings.audio_prompts
    )


def load_scorers(settings: ScoringConfig, device: torch.device) -> Quality:
    """The two scorers that the settings name, on the device."""
    scorers = load_quality(settings.adherence, settings.preference, settings.adherence_weight)
    for scorer in (scorers.adherence, scorers.preference):
        if isinstance(scorer, nn.Module):
            scorer.to(device)
    return scorers
