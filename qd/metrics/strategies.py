"""Bootstrap comparison of two strategies by their Pareto fronts; see :mod:`qd.metrics.pareto`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qd.metrics.bootstrap import Interval
from qd.metrics.pareto import check_reference, dominates, hypervolumes

LEVEL = 0.95
"""Confidence level of the intervals."""


class Strategy(NamedTuple):
    """Values of the points of a strategy for each prompt. A point is the mean over prompts.

    Attributes:
        quality: Quality, ``(points, prompts)``.
        diversity: Diversity, ``(points, prompts)``.
    """

    quality: ArrayLike
    diversity: ArrayLike


class Dominance(NamedTuple):
    """Comparison of strategy A with strategy B.

    Attributes:
        probability: Share of resamples in which the front of A has the larger hypervolume. Equal ones count ½.
        difference: Hypervolume of A minus that of B, with its interval.
        coverage: Share of the points of B that A dominates, with its interval.
        covered: Share of the points of A that B dominates, with its interval.
    """

    probability: float
    difference: Interval
    coverage: Interval
    covered: Interval


def dominance(a: Strategy, b: Strategy, reference: ArrayLike, n: int = 2000, seed: int = 0) -> Dominance:
    """Compares two strategies by their fronts, with a bootstrap over prompts.

    Each of the ``n`` resamples draws the original number of prompts with replacement. All points of both strategies use
    the same draw, because they were measured on the same prompts. In each resample every point is its mean over the
    drawn prompts, and fronts, hypervolumes and coverage are computed from these means. The reference stays fixed. The
    probability is P(hypervolume of A > that of B) + ½ P(both are equal) over the resamples.

    The intervals do not include the noise of sampling and of training. A strategy with more points has more chances to
    reach far out, so compare strategies with similar numbers of points.

    Args:
        a: First strategy.
        b: Second strategy, with the same prompts in the same order.
        reference: Reference point of the hypervolumes, ``(2,)``; see :func:`qd.metrics.pareto.common_reference`.
        n: Number of resamples.
        seed: Seed for the resamples. The resamples depend only on the seed and the number of prompts.

    Raises:
        ValueError: If a strategy has no points or fewer than two prompts, its arrays differ in shape, the strategies
            differ in their number of prompts, a value is not finite, or ``n`` is below 1.
    """
    first, second, origin = _strategy(a, "a"), _strategy(b, "b"), check_reference(reference)
    prompts = first.shape[-1]
    if second.shape[-1] != prompts:
        raise ValueError(f"a has {prompts} prompts and b {second.shape[-1]}: expected the same prompts in both.")
    if n < 1:
        raise ValueError(f"n is {n}: expected 1 resample or more, such as 2000.")
    draws = np.random.default_rng(seed).integers(prompts, size=(n, prompts))
    shares = np.stack([np.bincount(row, minlength=prompts) for row in draws]) / prompts
    whole = np.full((1, prompts), 1 / prompts)
    measured, resampled = (_compare(first, second, weights, origin) for weights in (whole, shares))
    gain = resampled[0]
    intervals = [
        Interval(float(value[0]), *map(float, np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))
        for value, values in zip(measured, resampled, strict=True)
    ]
    return Dominance(float((gain > 0).mean() + (gain == 0).mean() / 2), *intervals)


def _compare(a: NDArray, b: NDArray, shares: NDArray, reference: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Returns, for each resample, the difference of the hypervolumes, the coverage of b by a, and that of a by b.

    Args:
        a: Quality and diversity, ``(2, points, prompts)``.
        b: The same of the other strategy.
        shares: Weight of each prompt in each resample, ``(resamples, prompts)``.
        reference: Reference point, ``(2,)``.
    """
    first, second = (np.einsum("cpq,rq->rpc", values, shares) for values in (a, b))  # (resamples, points, 2)
    gain = hypervolumes(first, reference) - hypervolumes(second, reference)
    return gain, _coverage(first, second), _coverage(second, first)


def _coverage(a: NDArray, b: NDArray) -> NDArray:
    """Returns the share of points of b that a point of a dominates: ``(resamples, points, 2)`` → ``(resamples,)``."""
    return np.mean([dominates(a, b[:, point, None]).any(1) for point in range(b.shape[1])], axis=0)


def _strategy(strategy: Strategy, name: str) -> NDArray[np.float64]:
    """Returns a checked strategy as one array, ``(2, points, prompts)``."""
    quality, diversity = (np.asarray(values, dtype=np.float64) for values in strategy)
    if quality.shape != diversity.shape:
        shapes = f"quality has shape {quality.shape} and diversity {diversity.shape}"
        raise ValueError(f"{name}: {shapes}: expected (points, prompts) for both.")
    if quality.ndim != 2 or quality.shape[0] < 1 or quality.shape[1] < 2:
        raise ValueError(
            f"{name} has shape {quality.shape}: expected (points, prompts) with 1 point and 2 prompts or more."
        )
    values = np.stack([quality, diversity])
    if not np.isfinite(values).all():
        places = np.argwhere(~np.isfinite(values).all(0))[:5].tolist()
        raise ValueError(f"{name} is not finite at [point, prompt] {places}.")
    return values
