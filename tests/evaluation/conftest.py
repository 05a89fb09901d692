from __future__ import annotations

from dataclasses import replace

import pytest

from qd.evaluation.columns import METRICS
from qd.evaluation.points import Point
from qd.metrics.bootstrap import Interval


@pytest.fixture
def point() -> Point:
    """One plausible point; tests vary it with ``dataclasses.replace``."""
    return Point(
        key="0123456789abcdef",
        run="beta15",
        model="runs/beta15/step-000500",
        step=500,
        beta=15.0,
        guidance_scale=1.0,
        negative=None,
        temperature=0.99,
        lam=None,
        seed=0,
        protocol="quick",
        scorers="adherence@1 preference@2",
        n_prompts=32,
        n_samples=4,
        metrics={name: Interval(0.5 + i, 0.4 + i, 0.7 + i) for i, name in enumerate(METRICS)},
        seconds=9.5,
    )


@pytest.fixture
def at(point):
    """Makes a point with this step, quality and diversity."""

    def make(step: int, quality: float, diversity: float, **changes) -> Point:
        values = {"quality": quality, "diversity": diversity}
        moved = {name: Interval(v, v - 0.05, v + 0.1) for name, v in values.items()}
        return replace(point, step=step, metrics={**point.metrics, **moved}, **changes)

    return make
