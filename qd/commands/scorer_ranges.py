"""``make scorer-ranges``: measures the ranges of two scorers, and the ω that makes them equal.

The paper uses ω = 5 so that adherence and preference have similar ranges (Section 3.1). Another pair of scorers needs
another ω: measure it once, before the first run with these scorers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from qd.config.loading import ConfigError
from qd.config.policy import TEMPERATURE
from qd.config.protocols import build_protocol
from qd.data.prompt_lengths import named_list, prompt_report, unreadable_lists
from qd.data.world.captions import NEGATIVE_PROMPT
from qd.evaluation.evaluator import Evaluator
from qd.evaluation.measure import EvaluationModels
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import sampling_problems
from qd.modules.budget.memory import check_sampling_memory
from qd.runs.devices import resolve_device
from qd.runs.printable import printable
from qd.scorers.loading import load_quality
from qd.scorers.protocol import ADHERENCE_WEIGHT, Quality, Scorer

BOTH = "both"
_LEAST_SPREAD = 1e-9


class RecordingScorer:
    """A scorer that records the score of every clip: a measurement has only means over the samples of a prompt."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.name, self.version = scorer, scorer.name, scorer.version
        self.sample_rate, self.scores = scorer.sample_rate, []

    def __call__(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        scores = self.scorer(audio, sample_rate, prompts)
        self.scores.extend(scores.tolist())
        return scores


def scorer_ranges(
    model: str = "base",
    *,
    adherence: str = "builtin",
    preference: str = "builtin",
    prompts: str | None = None,
    n: int | None = None,
    guidance: float = 3.0,
    negative_prompt: str | None = NEGATIVE_PROMPT,
    seconds: float = 4.0,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    device: str = "auto",
) -> str:
    """Scores 4 samples of each prompt, without guidance and with it, and returns the ranges in Markdown.

    Args:
        model: Any name for ``qd.models.checkpoints.resolver.resolve_model``.
        adherence: Name of an adherence scorer; see ``qd.scorers.loading``.
        preference: Name of a preference scorer; see ``qd.scorers.loading``.
        prompts: File of prompts, see ``qd.data.prompt_files``; the built-in development prompts if None.
        n: Number of prompts; None for all of the file, or 32 built-in ones.
        guidance: γ of the guided half, 0 or more.
        negative_prompt: Negative prompt of the guidance; None or empty is unconditional.
        seconds: Length of a clip.
        temperature: T.
        seed: Seed for token sampling.
        device: Name for ``qd.runs.devices.resolve_device``.

    Raises:
        ConfigError: γ or T is out of range, or prompts are too long.
        ValueError: A model or a scorer cannot be loaded, the device cannot hold a batch, or a scorer gives all clips
            the same score.
    """
    if problems := sampling_problems(temperature, guidance, None, None):
        raise ConfigError(problems)
    protocol = build_protocol("quick", n_prompts=n, seconds=seconds, prompts_file=prompts)
    where, rows = resolve_device(device), min(Evaluator.eval_batch_size, protocol.rows(ranks=1))
    music, size = MusicGen.load(model), {"rows": rows, "seconds": seconds, "guided": guidance != 1.0}
    music.name = model
    check_sampling_memory(music, where, **size, lower=["a shorter seconds"])
    music.to(where)
    lists = named_list(prompts, n)
    if problems := unreadable_lists(lists, music.tokenizer):
        raise ConfigError(problems)
    print(printable(prompt_report(lists)), end="", file=sys.stderr, flush=True)
    quality = load_quality(adherence, preference)
    scorers = [s.to(music.device) if isinstance(s, nn.Module) else s for s in (quality.adherence, quality.preference)]
    embedder = load_embedder("builtin").to(music.device)  # required by a measurement; not used here
    scores: dict[str, tuple[list[float], list[float]]] = {}
    for scale in track((1.0, guidance), "sampling and scoring", console=Console(stderr=True), transient=True):
        recorded = Quality(*(RecordingScorer(scorer) for scorer in scorers))
        evaluator = Evaluator(music, EvaluationModels(recorded, embedder, embedder), protocol, temperature, seed)
        evaluator.measure(music.lm, evaluator.sampling(scale, negative_prompt or None))
        scores[f"γ = {scale:g}"] = recorded.adherence.scores, recorded.preference.scores
    title = f"{quality.adherence.name}@{quality.adherence.version} and "
    title += f"{quality.preference.name}@{quality.preference.version} on {model}: protocol {protocol.id}, seed {seed}"
    return ranges_report(title, scores)


def ranges_report(title: str, scores: dict[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Returns means, standard deviations and 5–95 % ranges, and ω = sd(preference) / sd(adherence) over all clips.

    Args:
        title: Title of the report.
        scores: Adherence and preference scores of the clips, by kind of sampling.

    Raises:
        ValueError: A scorer gives all clips the same score.
    """
    pooled = {**scores, BOTH: tuple(np.concatenate(parts) for parts in zip(*scores.values(), strict=True))}
    lines = [f"### {title}", "", "| score | samples | clips | mean | sd | 5 % | 95 % |", "|---" * 7 + "|"]
    for column, name in enumerate(("adherence", "preference")):
        for samples, values in pooled.items():
            low, high = np.quantile(values[column], [0.05, 0.95])
            numbers = f"{np.mean(values[column]):.3f} | {np.std(values[column]):.3f} | {low:.3f} | {high:.3f}"
            lines.append(f"| {name} | {samples} | {len(values[column])} | {numbers} |")
    deviations = [float(np.std(values)) for values in pooled[BOTH]]
    if min(deviations) < _LEAST_SPREAD:
        raise ValueError(
            f"standard deviations {deviations}: a scorer gives all clips the same score, so ω is undefined"
        )
    widths = [float(np.diff(np.quantile(values, [0.05, 0.95]))[0]) for values in pooled[BOTH]]
    omega, by_ranges = deviations[1] / deviations[0], widths[1] / widths[0]
    share = ADHERENCE_WEIGHT / omega
    conclusion = (
        f"ω = {omega:.2f} gives the two terms of quality = ω · adherence + preference equal ranges: it is",
        f"sd(preference) / sd(adherence) over all clips. By the widths of the 5–95 % ranges it is {by_ranges:.2f}.",
        f"With the default, {ADHERENCE_WEIGHT:g}, ω · adherence varies {share:.2f} times as much as preference.",
        f"To set it: `evaluation.adherence_weight={omega:.2f}`.",
    )
    return "\n".join([*lines, "", *conclusion])
