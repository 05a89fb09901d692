"""Statistics of several models on the same prompts, with bootstrap intervals over the prompts.

All models of a statistic share each resample, so the effect of a difficult prompt cancels in differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from qd.metrics.bootstrap import Interval
from qd.metrics.pareto import front, non_dominated

LEVEL = 0.95
RESAMPLES = 1000


def bootstrap(statistic: Callable[[NDArray], float], values: Sequence[NDArray] | NDArray, seed: int = 0) -> Interval:
    """A statistic of means, and the interval that contains 95 % of its values over resamples of the prompts.

    If a row has several training runs, these are resampled too, with the same draw for all rows that have the same
    number of runs. The interval then includes the variation between training runs, as far as few runs can show it.

    Args:
        statistic: Function of the means ``(rows,)``; NaN if undefined. Undefined resamples are left out.
        values: For each row (a model and a metric) ``(prompts,)`` or ``(runs, prompts)``.
        seed: Seed of the resampling.

    Returns:
        The interval; NaN in all three fields if the statistic is undefined on all prompts.

    Example:
        >>> bootstrap(lambda means: means[0] - means[1], np.array([[1.0, 2.0], [0.5, 1.5]]))
        Interval(mean=0.5, lo=0.5, hi=0.5)
    """
    rows = [np.atleast_2d(np.asarray(row, dtype=np.float64)) for row in values]
    prompts = rows[0].shape[-1]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(prompts, size=(RESAMPLES, prompts))
    runs = {count: generator.integers(count, size=(RESAMPLES, count)) for count in sorted({len(row) for row in rows})}
    whole = float(statistic(np.array([row.mean() for row in rows])))
    resampled = np.array(
        [statistic(np.array([row[runs[len(row)][i]][:, draw].mean() for row in rows])) for i, draw in enumerate(drawn)]
    )
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(whole) or len(defined) == 0:
        return Interval(np.nan, np.nan, np.nan)
    return Interval(whole, *map(float, np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))


def gain_at_equal_diversity(line: NDArray, targets: NDArray) -> float:
    """Mean difference in quality between a line of models and other models, at the diversity of each other model.

    The line's quality is interpolated between its non-dominated points. For a target less diverse than all of them, it
    is the quality of the least diverse one. Targets more diverse than the whole line are left out.

    Args:
        line: Quality and diversity of the line, ``(points, 2)``.
        targets: Quality and diversity of the other models, ``(targets, 2)``.

    Returns:
        The mean difference; NaN if all targets are more diverse than the line.
    """
    quality, diversity = front(line)[::-1].T  # diversity rising
    reached = targets[targets[:, 1] <= diversity[-1]]
    return float((np.interp(reached[:, 1], diversity, quality) - reached[:, 0]).mean()) if len(reached) else np.nan


def front_of(quality: NDArray, diversity: NDArray) -> NDArray[np.int64]:
    """Indices of the non-dominated points."""
    return np.flatnonzero(non_dominated(np.column_stack([quality, diversity])))


def rank_agreement(a: NDArray, b: NDArray) -> float:
    """Kendall's τ-b between two rankings of the same models; 1 for equal rankings."""
    return float(kendalltau(a, b).statistic)
