"""Fronts in the quality–diversity plane: who is dominated, how much a front covers, and how sure one is of that.

A point is (quality, diversity), both to be maximised, of one model sampled in one way; a strategy is a set of points,
such as the λ of an interpolation or the γ of guidance. Point p dominates q if it is at least as good in both and better
in one: of equal points none dominates the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray

from qd.metrics.bootstrap import Interval

LEVEL = 0.95
"""Of the bootstrap intervals."""
DEGREE = 3
"""Of the polynomials that stand for a line of models."""


class Strategy(NamedTuple):
    """The points of a strategy, prompt by prompt; a point is a mean over the prompts.

    Attributes:
        quality, diversity: ``(points, prompts)``.
    """

    quality: ArrayLike
    diversity: ArrayLike


class Dominance(NamedTuple):
    """How strategy A compares with strategy B.

    Attributes:
        probability: share of the resamples in which A's front has the larger hypervolume; equal ones count half.
        difference: hypervolume of A minus that of B, and the interval of it.
        coverage: share of B's points that A dominates, and the interval of it.
        covered: share of A's points that B dominates, and the interval of it.
    """

    probability: float
    difference: Interval
    coverage: Interval
    covered: Interval


def dominates(p: ArrayLike, q: ArrayLike) -> NDArray[np.bool_]:
    """Which points p dominate which points q: ``(…, 2)`` against ``(…, 2)``, by broadcasting.

    Example:
        >>> dominates([[1.0, 0.5], [0.2, 0.9]], [0.2, 0.5])
        array([ True,  True])
    """
    first, second = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    return (first >= second).all(-1) & (first > second).any(-1)


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points no other one dominates.

    Of equal points none dominates the other, so that all of them are on the front or none. A point that ties in one
    coordinate and loses in the other is dominated.

    Args:
        points: ``(points, 2)``.

    Returns:
        ``(points,)``.

    Raises:
        ValueError: no points, not of that shape, or not finite.

    Example:
        >>> non_dominated([[1.0, 0.2], [0.5, 0.5], [0.5, 0.4], [0.5, 0.5]])
        array([ True,  True, False,  True])
    """
    plane = _plane(points)
    order = np.lexsort((-plane[:, 1], -plane[:, 0]))  # by quality, the best first; where equal, by diversity
    ranked = plane[order]
    highest = np.maximum.accumulate(ranked[:, 1])
    # On the front is what is higher than all of better quality, and what equals such a point.
    rises = np.concatenate([[True], ranked[1:, 1] > highest[:-1]])
    leader = np.maximum.accumulate(np.where(rises, np.arange(len(ranked)), 0))
    kept = np.empty(len(plane), dtype=bool)
    kept[order] = (ranked == ranked[leader]).all(1)
    return kept


def front(points: ArrayLike) -> NDArray[np.float64]:
    """The distinct non-dominated points ``(front, 2)``, quality rising and so diversity falling.

    Raises:
        ValueError: as :func:`non_dominated`.
    """
    plane = _plane(points)
    return np.unique(plane[non_dominated(plane)], axis=0)


def smooth_line(at: NDArray, line: NDArray) -> NDArray[np.float64]:
    """A line of models without the noise of each: cubics in λ, fitted by least squares.

    The best of many noisy points is better than any of them really is, so a line that were its non-dominated points
    would beat its own models, the more so the more points it has.

    Args:
        at: ``(points,)``, λ, rising. line: ``(points, 2)``, quality and diversity there.

    Returns:
        ``(101, 2)``, evenly spaced; the line itself where four points or fewer would be met exactly.
    """
    if len(at) <= DEGREE + 1:
        return line
    grid = np.linspace(at[0], at[-1], 101)
    return np.column_stack([Polynomial.fit(at, values, DEGREE)(grid) for values in line.T])


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Area of what the points dominate and what dominates the reference: of the union of the rectangles between them.

    It means something only beside the reference it was taken with. A point that is not better than the reference in
    both coordinates adds nothing.

    Args:
        points: ``(points, 2)``, in any order; dominated ones and duplicates add nothing.
        reference: ``(2,)``, the quality and the diversity that count as nothing.

    Raises:
        ValueError: as :func:`non_dominated`; or the reference is no pair of finite numbers.

    Example:
        >>> hypervolume([[1.0, 0.2], [0.5, 0.5]], reference=[0.0, 0.0])
        0.35
    """
    return float(_areas(_plane(points), _reference(reference)))


def common_reference(*strategies: ArrayLike) -> NDArray[np.float64]:
    """A reference point for strategies that are compared: the worst quality and the worst diversity of all points.

    Args:
        strategies: ``(points, 2)`` each.

    Raises:
        ValueError: no strategy; and as :func:`non_dominated`.
    """
    if not strategies:
        raise ValueError("no strategy is given; a reference point needs the points that are compared.")
    return np.min([_plane(points).min(0) for points in strategies], axis=0)


def dominance(a: Strategy, b: Strategy, reference: ArrayLike, n: int = 2000, seed: int = 0) -> Dominance:
    """Whether strategy A is better than strategy B, and how far the choice of the prompts could have made it seem so.

    Each of ``n`` resamples draws as many prompts as there are, with replacement, the same for every point of both
    strategies (they were measured on the same prompts, and a hard prompt is hard for all). Every point is its mean over
    those prompts; the fronts, their hypervolumes over the reference, which stays, and the coverage are taken anew. The
    probability is P(hypervolume of A > that of B) + ½ P(they are equal) over the resamples.

    What this does not see: the noise of sampling and of the training run, and that a strategy of more points has more
    chances to reach farther out. Compare strategies of about as many points.

    Args:
        a, b: the strategies, with the same prompts in the same order.
        reference: ``(2,)``, see :func:`hypervolume` and :func:`common_reference`.
        n: number of resamples.
        seed: of the resampling; one seed and one number of prompts give one set of resamples.

    Raises:
        ValueError: a strategy has no points or fewer than two prompts, its arrays differ in shape, the strategies
            differ in prompts, a value is not finite, or ``n`` is below 1.
    """
    first, second, origin = _strategy(a, "a"), _strategy(b, "b"), _reference(reference)
    prompts = first.shape[-1]
    if second.shape[-1] != prompts:
        raise ValueError(f"a has {prompts} prompts and b {second.shape[-1]}: expected the same prompts in both.")
    if n < 1:
        raise ValueError(f"n is {n}: expected 1 resample or more, such as 2000.")
    drawn = np.random.default_rng(seed).integers(prompts, size=(n, prompts))
    shares = np.stack([np.bincount(row, minlength=prompts) for row in drawn]) / prompts
    whole = np.full((1, prompts), 1 / prompts)
    measured, resampled = (_compare(first, second, weights, origin) for weights in (whole, shares))
    gain = resampled[0]
    intervals = [
        Interval(float(value[0]), *map(float, np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))
        for value, values in zip(measured, resampled, strict=True)
    ]
    return Dominance(float((gain > 0).mean() + (gain == 0).mean() / 2), *intervals)


def _compare(a: NDArray, b: NDArray, shares: NDArray, reference: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Difference of the hypervolumes, share of b that a dominates, share of a that b dominates, for each resample.

    ``a``, ``b`` are ``(2, points, prompts)``, ``shares`` ``(resamples, prompts)``: of each prompt in a resample.
    """
    first, second = (np.einsum("cpq,rq->rpc", values, shares) for values in (a, b))  # (resamples, points, 2)
    gain = _areas(first, reference) - _areas(second, reference)
    return gain, _coverage(first, second), _coverage(second, first)


def _coverage(a: NDArray, b: NDArray) -> NDArray:
    """Share of the points of b that a point of a dominates: ``(resamples, points, 2)`` each to ``(resamples,)``."""
    return np.mean([dominates(a, b[:, point, None]).any(1) for point in range(b.shape[1])], axis=0)


def _areas(points: NDArray, reference: NDArray) -> NDArray:
    """Hypervolume of each set of points: ``(…, points, 2)`` to ``(…)``.

    From the best quality down, a point adds a strip: as wide as its quality, as high as it rises above all before it.
    """
    above = np.maximum(points - reference, 0.0)
    order = np.argsort(-above[..., 0], axis=-1, kind="stable")
    quality, diversity = (np.take_along_axis(above[..., axis], order, axis=-1) for axis in (0, 1))
    highest = np.maximum.accumulate(diversity, axis=-1)
    rise = np.diff(highest, axis=-1, prepend=0.0)
    return (quality * rise).sum(-1)


def _plane(points: ArrayLike) -> NDArray[np.float64]:
    plane = np.asarray(points, dtype=np.float64)
    if plane.ndim != 2 or plane.shape[1] != 2 or len(plane) == 0:
        raise ValueError(f"points are of shape {plane.shape}: expected (points, 2), 1 point or more.")
    if not np.isfinite(plane).all():
        raise ValueError(f"points are not finite at {np.flatnonzero(~np.isfinite(plane).all(1)).tolist()}.")
    return plane


def _reference(reference: ArrayLike) -> NDArray[np.float64]:
    point = np.asarray(reference, dtype=np.float64)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ValueError(f"reference is {reference}: expected two finite numbers, a quality and a diversity.")
    return point


def _strategy(strategy: Strategy, name: str) -> NDArray[np.float64]:
    """``(2, points, prompts)``."""
    quality, diversity = (np.asarray(values, dtype=np.float64) for values in strategy)
    if quality.shape != diversity.shape:
        shapes = f"quality is of shape {quality.shape} and diversity of {diversity.shape}"
        raise ValueError(f"{name}: {shapes}: expected (points, prompts) for both.")
    if quality.ndim != 2 or quality.shape[0] < 1 or quality.shape[1] < 2:
        raise ValueError(
            f"{name} is of shape {quality.shape}: expected (points, prompts), 1 point and 2 prompts or more."
        )
    values = np.stack([quality, diversity])
    if not np.isfinite(values).all():
        places = np.argwhere(~np.isfinite(values).all(0))[:5].tolist()
        raise ValueError(f"{name} is not finite at [point, prompt] {places}.")
    return values
