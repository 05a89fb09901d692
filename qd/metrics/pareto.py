"""Pareto fronts in the quality–diversity plane, and their hypervolume.

A point is a pair (quality, diversity) of one model sampled in one way. Both are to be maximised. A strategy is a set of
points, such as an interpolation at several λ or guidance at several γ. Point p dominates point q if p is at least as
good in both coordinates and better in one. So equal points do not dominate each other.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray

DEGREE = 3
"""Degree of the polynomials in :func:`smooth_line`."""


def dominates(p: ArrayLike, q: ArrayLike) -> NDArray[np.bool_]:
    """Returns whether points p dominate points q, by broadcasting.

    Args:
        p: Points, ``(…, 2)``.
        q: Points, ``(…, 2)``.

    Returns:
        Boolean array of the broadcast shape without the last dimension.

    Example:
        >>> dominates([[1.0, 0.5], [0.2, 0.9]], [0.2, 0.5])
        array([ True,  True])
    """
    first, second = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    return (first >= second).all(-1) & (first > second).any(-1)


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Returns which points are on the Pareto front: those that no other point dominates.

    Equal points do not dominate each other, so all of them are on the front, or none. A point that is equal in one
    coordinate and worse in the other is dominated.

    Args:
        points: Points, ``(points, 2)``, points ≥ 1.

    Returns:
        Boolean array, ``(points,)``.

    Raises:
        ValueError: If there are no points, the shape is wrong, or a value is not finite.

    Example:
        >>> non_dominated([[1.0, 0.2], [0.5, 0.5], [0.5, 0.4], [0.5, 0.5]])
        array([ True,  True, False,  True])
    """
    plane = _plane(points)
    order = np.lexsort((-plane[:, 1], -plane[:, 0]))  # by falling quality, then by falling diversity
    ranked = plane[order]
    highest = np.maximum.accumulate(ranked[:, 1])
    # A point is on the front if its diversity exceeds that of all points before it, or if it equals such a point.
    rises = np.concatenate([[True], ranked[1:, 1] > highest[:-1]])
    leader = np.maximum.accumulate(np.where(rises, np.arange(len(ranked)), 0))
    on_front = np.empty(len(plane), dtype=bool)
    on_front[order] = (ranked == ranked[leader]).all(1)
    return on_front


def front(points: ArrayLike) -> NDArray[np.float64]:
    """Returns the distinct points of the Pareto front, by rising quality and so by falling diversity.

    Args:
        points: Points, ``(points, 2)``, points ≥ 1.

    Returns:
        Points, ``(front, 2)``.

    Raises:
        ValueError: For the reasons of :func:`non_dominated`.
    """
    plane = _plane(points)
    return np.unique(plane[non_dominated(plane)], axis=0)


def smooth_line(at: NDArray, line: NDArray) -> NDArray[np.float64]:
    """Returns a smooth line through noisy models: cubic polynomials in λ, fitted by least squares.

    The maximum over noisy points exceeds the true values of all of them. So the non-dominated points of a line would
    beat the models on it, and more so the more points there are. The fit averages the noise out instead.

    Args:
        at: λ of each point, rising, ``(points,)``.
        line: Quality and diversity of each point, ``(points, 2)``.

    Returns:
        Evenly spaced points on the fit, ``(101, 2)``. With four points or fewer, which a cubic fits exactly, the
        unchanged ``line``.
    """
    if len(at) <= DEGREE + 1:
        return line
    grid = np.linspace(at[0], at[-1], 101)
    return np.column_stack([Polynomial.fit(at, values, DEGREE)(grid) for values in line.T])


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Returns the area that the points dominate above the reference: that of the union of their rectangles.

    The rectangle of a point has the point and the reference as opposite corners. A point that is not better than the
    reference in both coordinates adds nothing. Only hypervolumes over the same reference can be compared.

    Args:
        points: Points, ``(points, 2)``, in any order. Dominated points and duplicates add nothing.
        reference: Lowest quality and diversity that count, ``(2,)``.

    Returns:
        Area, in units of quality times diversity.

    Raises:
        ValueError: For the reasons of :func:`non_dominated`, or if the reference is not a pair of finite numbers.

    Example:
        >>> hypervolume([[1.0, 0.2], [0.5, 0.5]], reference=[0.0, 0.0])
        0.35
    """
    return float(hypervolumes(_plane(points), check_reference(reference)))


def common_reference(*strategies: ArrayLike) -> NDArray[np.float64]:
    """Returns a reference point to compare strategies: the lowest quality and the lowest diversity of all points.

    Args:
        *strategies: Points of each strategy, ``(points, 2)``.

    Returns:
        Reference for :func:`hypervolume`, ``(2,)``.

    Raises:
        ValueError: If there is no strategy, or for the reasons of :func:`non_dominated`.
    """
    if not strategies:
        raise ValueError("no strategy to take a reference point from: pass the points of one strategy or more.")
    return np.min([_plane(points).min(0) for points in strategies], axis=0)


def hypervolumes(points: NDArray, reference: NDArray) -> NDArray:
    """Returns the hypervolume of each set of points: ``(…, points, 2)`` → ``(…)``.

    The sum goes from the highest quality down. Each point adds a strip, as wide as its quality and as high as its
    diversity exceeds that of all points before it.
    """
    above = np.maximum(points - reference, 0.0)
    order = np.argsort(-above[..., 0], axis=-1, kind="stable")
    quality, diversity = (np.take_along_axis(above[..., axis], order, axis=-1) for axis in (0, 1))
    highest = np.maximum.accumulate(diversity, axis=-1)
    rise = np.diff(highest, axis=-1, prepend=0.0)
    return (quality * rise).sum(-1)


def check_reference(reference: ArrayLike) -> NDArray[np.float64]:
    """Returns the reference as an array; raises ``ValueError`` if it is not a pair of finite numbers."""
    point = np.asarray(reference, dtype=np.float64)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ValueError(f"reference is {reference}: expected two finite numbers, a quality and a diversity.")
    return point


def _plane(points: ArrayLike) -> NDArray[np.float64]:
    plane = np.asarray(points, dtype=np.float64)
    if plane.ndim != 2 or plane.shape[1] != 2 or len(plane) == 0:
        raise ValueError(f"points have shape {plane.shape}: expected (points, 2) with 1 point or more.")
    if not np.isfinite(plane).all():
        raise ValueError(f"points are not finite at {np.flatnonzero(~np.isfinite(plane).all(1)).tolist()}.")
    return plane
