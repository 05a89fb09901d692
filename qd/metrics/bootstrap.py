"""Percentile bootstrap over prompts: how sure a mean over prompts is.

Prompts are what is resampled, not samples: the samples of one prompt are alike, and a new experiment would draw new
prompts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval."""

    mean: float
    lo: float
    hi: float


def bootstrap_interval(per_prompt: ArrayLike, level: float = 0.95, n: int = 2000, seed: int = 0) -> Interval:
    """The mean over prompts, and the interval that holds ``level`` of the means of ``n`` resamples of the prompts.

    Args:
        per_prompt: ``(prompts,)``, one finite value for each prompt.
        level: confidence level, between 0 and 1.
        n: number of resamples.
        seed: of the resampling; one seed and one length give one set of resamples.

    Raises:
        ValueError: for fewer than two values, values not finite, or a level or number out of range.

    Example:
        >>> interval = bootstrap_interval([0.2, 0.4, 0.3, 0.5])
        >>> [round(value, 3) for value in interval]
        [0.35, 0.25, 0.45]
    """
    values = np.asarray(per_prompt, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"per_prompt is of shape {values.shape}: expected (prompts,) with 2 prompts or more.")
    if not np.isfinite(values).all():
        raise ValueError(f"per_prompt is not finite at prompts {np.flatnonzero(~np.isfinite(values)).tolist()}.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected a number between 0 and 1, such as 0.95.")
    if n < 1:
        raise ValueError(f"n is {n}: expected 1 resample or more, such as 2000.")
    resamples = np.random.default_rng(seed).integers(len(values), size=(n, len(values)))
    lo, hi = np.quantile(values[resamples].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(lo), float(hi))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95, n: int = 2000, seed: int = 0) -> Interval:
    """``bootstrap_interval`` of a − b, where both hold the same prompts in the same order.

    Pairing takes out what makes one prompt harder than another, for both alike.

    Raises:
        ValueError: if the shapes differ, and as ``bootstrap_interval`` does.

    Example:
        >>> paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
        Interval(mean=0.5, lo=0.5, hi=0.5)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"a is of shape {first.shape} and b of {second.shape}: expected one value for each of the same prompts."
        )
    return bootstrap_interval(first - second, level, n, seed)
