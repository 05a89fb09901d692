from __future__ import annotations

import numpy as np
import pytest

from qd.builtin.pretrain.gate import judge
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import METRICS


def _measured(quality: np.ndarray, diversity: np.ndarray) -> Measurement:
    values = {name: np.zeros_like(quality) for name in METRICS} | {"quality": quality, "diversity": diversity}
    prompts = tuple(f"prompt {i}" for i in range(len(quality)))
    return Measurement(prompts, values, 0.8, np.zeros((0, 8), np.float32), 16_000, 1.0)


@pytest.mark.parametrize(
    ("gain", "share_of_diversity", "passes"),
    [(0.5, 0.8, True), (0.5, 0.95, False), (0.0, 0.8, False), (-0.5, 0.8, False), (0.5, 1.2, False)],
)
def test_the_gate_wants_more_quality_and_less_diversity(gain, share_of_diversity, passes):
    rng = np.random.default_rng(0)
    quality, diversity = rng.normal(size=101), rng.uniform(0.3, 0.6, 101)
    guided = _measured(quality + gain + 0.3 * rng.normal(size=101), share_of_diversity * diversity)
    verdict = judge(_measured(quality, diversity), guided)
    assert verdict.passed is passes
    assert verdict.relative_diversity == pytest.approx(share_of_diversity - 1)
    assert verdict.quality.lo < verdict.quality.mean < verdict.quality.hi


def test_an_uncertain_gain_does_not_pass():
    rng = np.random.default_rng(1)
    quality, diversity = rng.normal(size=20), np.full(20, 0.5)
    noise = rng.normal(size=20)
    guided = _measured(quality + 0.05 + (noise - noise.mean()), 0.5 * diversity)
    verdict = judge(_measured(quality, diversity), guided)
    assert verdict.quality.mean > 0 > verdict.quality.lo
    assert not verdict.passed
