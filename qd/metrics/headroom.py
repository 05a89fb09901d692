"""What an objective can reach: its optimum, estimated from samples of the teacher, and its distance to other policies.

The optimum reweights samples of the teacher (:mod:`qd.objectives.optimum`). The weights are a function of the
embedding. It is found on one half of the samples and applied to the other half, both ways, so that noise in the
embeddings is not mistaken for a gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qd.metrics.bootstrap import Interval
from qd.objectives.optimum import effective_samples, log_tilt, optimal_mean, weighted_diversity, weighted_kl

MIN_EFFECTIVE_SAMPLES = 50
"""With fewer effective samples in a half, an estimate of the optimum is not reliable."""

PerPrompt = Mapping[str, NDArray[np.float64]]
"""Values ``(prompts,)`` by the name of the metric."""


class ScoredSamples(NamedTuple):
    """Samples of one policy.

    Attributes:
        embeddings: ``(prompts, samples, width)``, unit vectors of the reward's embedder.
        eval_embeddings: The same of the embedder that no reward uses, with its own width.
        scores: ``(prompts, samples)`` by name: quality, adherence, preference.
    """

    embeddings: Tensor
    eval_embeddings: Tensor
    scores: Mapping[str, Tensor]


def optimum(samples: ScoredSamples, beta: float) -> PerPrompt:
    """The optimum of the objective at β, estimated from samples of its teacher by two-fold cross-fitting.

    Args:
        samples: Samples of the teacher, an even number of at least 4 a prompt.
        beta: β, 0 or more; 0 gives the teacher itself.

    Returns:
        Each metric ``(prompts,)``: ``kl`` to the teacher in nats a clip, ``diversity``, ``diversity_heldout``, the
        scores, and ``effective_samples`` of a half.

    Raises:
        ValueError: if the number of samples is odd or below 4, or β is negative.
    """
    count = samples.embeddings.shape[1]
    if count < 4 or count % 2:
        raise ValueError(f"{count} samples a prompt: expected an even number of at least 4, to make two halves.")
    halves = torch.arange(count).view(2, -1)
    folds = [_estimate(samples, fit, held_out, beta) for fit, held_out in (halves, halves.flip(0))]
    return {name: np.mean([fold[name].numpy() for fold in folds], axis=0) for name in folds[0]}


def policy(samples: ScoredSamples) -> PerPrompt:
    """The metrics of a policy that is not reweighted, ``(prompts,)`` each."""
    return {name: values.numpy() for name, values in _weighted(samples, _equal_weights(samples)).items()}


def gain_over_front(
    point: PerPrompt, front: Sequence[PerPrompt], diversity: str = "diversity", n: int = 2000, seed: int = 0
) -> Interval | None:
    """Quality of a point minus the quality of a front at the same diversity, with a bootstrap interval over prompts.

    The front is the line through its points in the order of their diversity. Each resample draws prompts, the same for
    the point and the front.

    Args:
        point: Metrics of the point.
        front: Metrics of each point of the front, on the same prompts.
        diversity: Name of the diversity metric: ``diversity`` or ``diversity_heldout``.
        n: Number of resamples.
        seed: Seed for the resampling.

    Returns:
        None if the point's diversity is outside the range of the front.
    """
    prompts = len(point["quality"])
    drawn = np.random.default_rng(seed).integers(prompts, size=(n, prompts))
    gains = [_gain(point, front, diversity, rows) for rows in (np.arange(prompts), *drawn)]
    if gains[0] is None:
        return None
    resampled = [gain for gain in gains[1:] if gain is not None]
    return Interval(gains[0], *(float(edge) for edge in np.quantile(resampled, [0.025, 0.975])))


def _estimate(samples: ScoredSamples, fit: Tensor, held_out: Tensor, beta: float) -> dict[str, Tensor]:
    mean = optimal_mean(samples.embeddings[:, fit], beta)
    held = ScoredSamples(
        samples.embeddings[:, held_out],
        samples.eval_embeddings[:, held_out],
        {name: scores[:, held_out] for name, scores in samples.scores.items()},
    )
    return _weighted(held, log_tilt(held.embeddings, mean, beta).softmax(-1))


def _weighted(samples: ScoredSamples, weights: Tensor) -> dict[str, Tensor]:
    return {
        "kl": weighted_kl(weights),
        "diversity": weighted_diversity(samples.embeddings, weights),
        "diversity_heldout": weighted_diversity(samples.eval_embeddings, weights),
        **{name: (weights * scores.double()).sum(-1) for name, scores in samples.scores.items()},
        "effective_samples": effective_samples(weights),
    }


def _equal_weights(samples: ScoredSamples) -> Tensor:
    shape = samples.embeddings.shape[:2]
    return torch.full(shape, 1 / shape[1], dtype=torch.float64)


def _gain(point: PerPrompt, front: Sequence[PerPrompt], diversity: str, rows: NDArray) -> float | None:
    line = sorted((float(one[diversity][rows].mean()), float(one["quality"][rows].mean())) for one in front)
    reach = float(point[diversity][rows].mean())
    if not line[0][0] <= reach <= line[-1][0]:
        return None
    return float(point["quality"][rows].mean() - np.interp(reach, *zip(*line, strict=True)))
