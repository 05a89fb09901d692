"""Agreement of a preference scorer with listeners, and of listeners with each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from qd.metrics.bootstrap import Interval

RESAMPLES_AT_ONCE = 100
"""Resamples in memory at once."""


def pairwise_accuracy(
    margin: ArrayLike,
    preferred: ArrayLike,
    first_unit: ArrayLike,
    second_unit: ArrayLike,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """Returns the share of comparisons in which the scorer agrees with the listener, with a bootstrap interval.

    A margin of 0 counts ½. The bootstrap resamples units, not comparisons, because comparisons that share a recording
    are not independent. If unit u is drawn m_u times, a comparison within u counts m_u times, and one between u and v
    counts m_u · m_v times.

    Args:
        margin: Score of the first recording minus that of the second, ``(comparisons,)``.
        preferred: 1 where the listener preferred the first recording, 0 where the second, ``(comparisons,)``. No ties.
        first_unit: Integer label of the first recording's unit, ``(comparisons,)``. A unit is a recording, or a group
            of recordings that are compared only with each other.
        second_unit: The same of the second recording, ``(comparisons,)``.
        level: Confidence level, between 0 and 1.
        n: Number of resamples.
        seed: Seed for the resamples.

    Returns:
        Accuracy in [0, 1] and its interval.

    Raises:
        ValueError: If the shapes differ, there is no comparison, or there are ties.

    Example:
        >>> pairwise_accuracy([0.3, -0.2, 0.1, 1.0], [1, 0, 0, 1], [0, 1, 2, 3], [0, 1, 2, 3]).mean
        0.75
    """
    margin, preferred, *units = (np.asarray(values) for values in (margin, preferred, first_unit, second_unit))
    if margin.ndim != 1 or len(margin) == 0 or any(values.shape != margin.shape for values in (preferred, *units)):
        raise ValueError(f"margin has shape {margin.shape}: expected (comparisons,), 1 or more, in all arguments.")
    if not np.isin(preferred, (0, 1)).all():
        raise ValueError("preferred has values other than 0 and 1: leave the ties out.")
    right = np.where(margin == 0, 0.5, (margin > 0) == preferred).astype(np.float64)
    names, places = np.unique(np.concatenate(units), return_inverse=True)
    first, second = places.reshape(2, -1)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, n, RESAMPLES_AT_ONCE):
        size = min(RESAMPLES_AT_ONCE, n - start)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        counts = times[:, first] * np.where(first == second, 1, times[:, second])
        drawn = counts.sum(axis=1)
        means.append((counts @ right)[drawn > 0] / drawn[drawn > 0])
    lo, hi = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(right.mean()), float(lo), float(hi))


class Agreement(NamedTuple):
    """Agreement of listeners about the same two recordings.

    Attributes:
        pairs: Number of pairs of recordings with two judgements or more.
        rate: Estimated probability that two judgements of one pair agree.
        ceiling: Highest accuracy that a scorer can be expected to reach on such pairs.
    """

    pairs: int
    rate: float
    ceiling: float


def agreement(first: ArrayLike, second: ArrayLike, preferred: ArrayLike) -> Agreement | None:
    """Estimates from repeated judgements the best accuracy that a scorer can reach.

    If a share p of listeners prefers one recording, two listeners agree with probability p² + (1 − p)², and the best
    scorer is right with probability max(p, 1 − p). If p is the same for all pairs, a probability of agreement A gives
    the accuracy (1 + √(2A − 1)) / 2. If p differs between pairs, this is an upper bound, because the root is concave.
    The estimate of A is unbiased: the share of agreeing pairs of judgements, over all pairs of recordings.

    Args:
        first: Integer label of the first recording, ``(comparisons,)``.
        second: Integer label of the second recording, ``(comparisons,)``.
        preferred: 1 where the listener preferred the first recording, 0 where the second, ``(comparisons,)``. No ties.

    Returns:
        The agreement, or None where no pair has two judgements.

    Example:
        >>> agreement([0, 1, 0], [1, 0, 1], [1, 0, 0])
        Agreement(pairs=1, rate=0.3333333333333333, ceiling=0.5)
    """
    first, second, preferred = (np.asarray(values) for values in (first, second, preferred))
    lower_wins = np.where(first < second, preferred, 1 - preferred)  # the recording with the lower label
    pair = np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1)
    _, which = np.unique(pair, axis=0, return_inverse=True)
    judgements = np.bincount(which.reshape(-1))
    wins = np.bincount(which.reshape(-1), weights=lower_wins)
    losses = judgements - wins
    repeated = judgements > 1
    if not repeated.any():
        return None
    agreeing = (wins * (wins - 1) + losses * (losses - 1))[repeated]
    rate = float(agreeing.sum() / (judgements * (judgements - 1))[repeated].sum())
    return Agreement(int(repeated.sum()), rate, (1 + float(np.sqrt(max(0.0, 2 * rate - 1)))) / 2)
