"""The request for a merge: models and their weights, and the default name of the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

DEFAULT_LAMBDA = 0.5
SUM_TOLERANCE = 1e-6


class Weighted(NamedTuple):
    """Name of a model, and its weight in the sum."""

    name: str
    weight: float


def interpolation(a: str, b: str, lam: float = DEFAULT_LAMBDA) -> list[Weighted]:
    """Returns the weights of (1 − λ) · A + λ · B (Eq. 6), with A the quality model and B the diverse one."""
    return [Weighted(a, 1 - lam), Weighted(b, lam)]


def soup(models: Sequence[str]) -> list[Weighted]:
    """Parses models written as ``name:weight``; models without any weights get equal shares.

    Raises:
        ValueError: some models have a weight and others have none.

    Example:
        >>> soup(["runs/a:0.25", "runs/b:0.75"])
        [Weighted(name='runs/a', weight=0.25), Weighted(name='runs/b', weight=0.75)]
        >>> soup(["runs/a", "base"])
        [Weighted(name='runs/a', weight=0.5), Weighted(name='base', weight=0.5)]
    """
    parsed = [name_and_weight(text) for text in models]
    bare = [name for name, weight in parsed if weight is None]
    if len(bare) == len(parsed):
        return [Weighted(name, 1 / len(parsed)) for name in bare]
    if bare:
        raise ValueError(
            f"no weight for {', '.join(bare)}; write name:weight for every model, or for none (equal shares)"
        )
    return [Weighted(*pair) for pair in parsed]


def weight_problems(weights: Sequence[Weighted], extrapolate: bool) -> list[str]:
    """Returns why the weights form no weighted average, one sentence per problem."""
    values = [weight for _, weight in weights]
    if not all(map(math.isfinite, values)):
        return [f"weights are {_listed(values)}; expected finite numbers"]
    problems = []
    if len(weights) < 2:
        problems.append(f"{len(weights)} model is given; expected 2 or more")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        problems.append(
            f"weights {_listed(values)} add up to {sum(values):g}; expected 1 (leave all out for equal shares)"
        )
    if not extrapolate and not all(0 <= value <= 1 for value in values):
        problems.append(
            f"weights {_listed(values)} leave [0, 1], which extrapolates beyond the models; allow that with "
            "EXTRAPOLATE=1 (--extrapolate), or use λ between 0 and 1"
        )
    return problems


def default_folder(weights: Sequence[Weighted], interpolated: bool) -> Path:
    """Returns the default output folder of a merge.

    An interpolation gets ``runs/merged/beta0-beta15-lambda0.5``. For a soup that name would be too long, so it gets the
    number of models and the time.
    """
    if not interpolated:
        return Path("runs") / "merged" / f"soup{len(weights)}-{datetime.now():%Y%m%d-%H%M%S}"
    (a, _), (b, lam) = weights
    return Path("runs") / "merged" / f"{_short(a)}-{_short(b)}-lambda{lam:g}"


def name_and_weight(text: str) -> tuple[str, float | None]:
    """Splits ``name:weight``; without a weight, it is None. A name may also contain a colon."""
    name, colon, weight = text.rpartition(":")
    try:
        return (name, float(weight)) if colon else (text, None)
    except ValueError:
        return text, None


def _short(name: str) -> str:
    path = Path(name)
    return "-".join(part for part in path.parts[-2:] if part not in ("runs", path.anchor))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
