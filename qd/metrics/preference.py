"""How well a judge agrees with listeners, and how well they agree with each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from qd.metrics.bootstrap import Interval

CHUNK = 100
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
    """Share of decided comparisons in which the judge prefers what the listener preferred, with a bootstrap interval.

    A judge who cannot decide, margin 0, scores ½. What is resampled are the units, not the comparisons, because those
    that share a recording are not independent: with m_u the times that unit u was drawn, a comparison within u counts
    m_u times, one between u and v counts m_u · m_v times.

    Args:
        margin: the judge's score of the first minus that of the second, ``(comparisons,)``.
        preferred: 1 where the first was preferred, 0 where the second was; no ties, ``(comparisons,)``.
        first_unit, second_unit: integers, what the recordings belong to: themselves, or a group of recordings that are
            compared with each other and no others, ``(comparisons,)``.
        level: confidence level, between 0 and 1.
        n: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: the shapes differ, there is no comparison, or there are ties.

    Example:
        >>> pairwise_accuracy([0.3, -0.2, 0.1, 1.0], [1, 0, 0, 1], [0, 1, 2, 3], [0, 1, 2, 3]).mean
        0.75
    """
    margin, preferred, *units = (np.asarray(values) for values in (margin, preferred, first_unit, second_unit))
    if margin.ndim != 1 or len(margin) == 0 or any(values.shape != margin.shape for values in (preferred, *units)):
        raise ValueError(f"margin is of shape {margin.shape}: expected (comparisons,), 1 or more, as all others.")
    if not np.isin(preferred, (0, 1)).all():
        raise ValueError("preferred holds ties: expected 0 or 1; leave the ties out.")
    right = np.where(margin == 0, 0.5, (margin > 0) == preferred).astype(np.float64)
    names, places = np.unique(np.concatenate(units), return_inverse=True)
    first, second = places.reshape(2, -1)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, n, CHUNK):
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=min(CHUNK, n - start))
        counts = times[:, first] * np.where(first == second, 1, times[:, second])
        drawn = counts.sum(axis=1)
        means.append((counts @ right)[drawn > 0] / drawn[drawn > 0])
    lo, hi = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(right.mean()), float(lo), float(hi))


class Agreement(NamedTuple):
    """How far listeners agree about the same two recordings.

    Attributes:
        pairs: of recordings that were judged twice or more often.
        rate: probability that two judgements of one pair agree.
        ceiling: accuracy that no judge can be expected to exceed on such pairs.
    """

    pairs: int
    rate: float
    ceiling: float


def agreement(first: ArrayLike, second: ArrayLike, preferred: ArrayLike) -> Agreement | None:
    """What repeated judgements of the same two recordings say of the best accuracy that any judge can reach.

    Where a share p of listeners prefers one recording, two of them agree with probability p² + (1 − p)², and the best
    judge is right with probability max(p, 1 − p). With one p for all pairs, an agreement A means the accuracy
    (1 + √(2A − 1)) / 2; with a p for each, that is an upper bound, because the root is concave. A is estimated without
    bias, pair by pair, from two judgements or more.

    Args:
        first, second: numbers of the recordings, ``(comparisons,)``.
        preferred: 1 where the first was preferred, 0 where the second was; no ties, ``(comparisons,)``.

    Returns:
        None where no pair was judged twice.

    Example:
        >>> agreement([0, 1, 0], [1, 0, 1], [1, 0, 0])
        Agreement(pairs=1, rate=0.3333333333333333, ceiling=0.5)
    """
    first, second, preferred = (np.asarray(values) for values in (first, second, preferred))
    turned = np.where(first < second, preferred, 1 - preferred)
    pair = np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1)
    _, which = np.unique(pair, axis=0, return_inverse=True)
    judged = np.bincount(which.reshape(-1))
    wins = np.bincount(which.reshape(-1), weights=turned)
    losses = judged - wins
    repeated = judged > 1
    if not repeated.any():
        return None
    agreeing = (wins * (wins - 1) + losses * (losses - 1))[repeated]
    rate = float(agreeing.sum() / (judged * (judged - 1))[repeated].sum())
    return Agreement(int(repeated.sum()), rate, (1 + float(np.sqrt(max(0.0, 2 * rate - 1)))) / 2)
