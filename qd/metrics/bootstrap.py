"""Percentile bootstrap over prompts: confidence intervals of a mean over prompts.

The bootstrap resamples prompts, not samples: the samples of one prompt are correlated, and a new experiment would draw
new prompts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A mean with its confidence interval.

    Attributes:
        mean: Mean of the values.
        lo: Lower end of the interval.
        hi: Upper end of the interval.
    """

    mean: float
    lo: float
    hi: float


def bootstrap_interval(per_prompt: ArrayLike, level: float = 0.95, n: int = 2000, seed: int = 0) -> Interval:
    """Returns the mean over prompts with its percentile bootstrap interval.

    The interval goes from the ``(1 − level) / 2`` to the ``(1 + level) / 2`` quantile of the means of ``n`` resamples
    of the prompts, drawn with replacement.

    Args:
        per_prompt: Finite values, one for each prompt, ``(prompts,)``, prompts ≥ 2.
        level: Confidence level, between 0 and 1.
        n: Number of resamples.
        seed: Seed for the resamples. The resamples depend only on the seed and the number of prompts.

    Returns:
        Mean and interval, in the unit of the values.

    Raises:
        ValueError: If there are fewer than two values, a value is not finite, or ``level`` or ``n`` is out of range.

    Example:
        >>> interval = bootstrap_interval([0.2, 0.4, 0.3, 0.5])
        >>> [round(value, 3) for value in interval]
        [0.35, 0.25, 0.45]
    """
    values = np.asarray(per_prompt, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"per_prompt has shape {values.shape}: expected (prompts,) with 2 prompts or more.")
    if not np.isfinite(values).all():
        raise ValueError(f"per_prompt is not finite at prompts {np.flatnonzero(~np.isfinite(values)).tolist()}.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected a number between 0 and 1, such as 0.95.")
    if n < 1:
        raise ValueError(f"n is {n}: expected 1 resample or more, such as 2000.")
    resamples = np.random.default_rng(seed).integers(len(values), size=(n, len(values)))
    lo, hi = np.quantile(values[resamples].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(lo), float(hi))


def defined_interval(per_prompt: ArrayLike) -> Interval:
    """Returns :func:`bootstrap_interval` over the prompts whose value is not NaN; NaN if they are fewer than two.

    Args:
        per_prompt: Values, one for each prompt, ``(prompts,)``; NaN where a prompt has none.

    Example:
        >>> defined_interval([0.5, float("nan"), 0.5])
        Interval(mean=0.5, lo=0.5, hi=0.5)
    """
    values = np.asarray(per_prompt, dtype=np.float64)
    defined = values[~np.isnan(values)]
    return bootstrap_interval(defined) if len(defined) > 1 else Interval(np.nan, np.nan, np.nan)


def defined_mean(values: ArrayLike, axis: int) -> NDArray[np.float64]:
    """Returns the mean along an axis of the values that are not NaN; NaN where there are none.

    Example:
        >>> defined_mean([[0.25, float("nan")], [0.75, float("nan")]], axis=0)
        array([0.5, nan])
    """
    values = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    return np.where(count > 0, np.where(defined, values, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95, n: int = 2000, seed: int = 0) -> Interval:
    """Returns :func:`bootstrap_interval` of the differences a − b, prompt by prompt.

    Pairing removes the difficulty of each prompt, which both share, so that the interval is narrower than without
    pairing.

    Args:
        a: Values, one for each prompt, ``(prompts,)``.
        b: Values of the same prompts in the same order, ``(prompts,)``.
        level: Confidence level, between 0 and 1.
        n: Number of resamples.
        seed: Seed for the resamples.

    Raises:
        ValueError: If the shapes differ, or for the reasons of :func:`bootstrap_interval`.

    Example:
        >>> paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
        Interval(mean=0.5, lo=0.5, hi=0.5)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"a has shape {first.shape} and b {second.shape}: expected one value for each of the same prompts in both."
        )
    return bootstrap_interval(first - second, level, n, seed)
