from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from qd.data.world import rater
from qd.data.world.degradation import CLEAN, DEGRADATIONS


def clip(degradation=CLEAN, severity=0.0, wrong_note_rate=0.0, unsteadiness=0.0):
    piece = SimpleNamespace(wrong_note_rate=wrong_note_rate, unsteadiness=unsteadiness)
    return SimpleNamespace(degradation=degradation, severity=severity, piece=piece)


def test_every_degradation_of_the_world_has_a_weight():
    assert rater.DEGRADATION.keys() == {CLEAN, *DEGRADATIONS}


def test_utility_by_hand():
    assert rater.utility(clip()) == 0.0
    assert rater.utility(clip("hiss", 0.0)) == pytest.approx(-1.0)
    assert rater.utility(clip("dropouts", 1.0, 0.2, 0.05)) == pytest.approx(-3.0 - 1.0 - 1.0)


@pytest.mark.parametrize("fault", [{"wrong_note_rate": 0.3}, {"unsteadiness": 0.05}, {"degradation": "muffled"}])
def test_every_fault_is_disliked(fault):
    assert rater.utility(clip(**fault)) < rater.utility(clip())


def test_comparisons_are_those_of_noisy_utilities():
    """Bradley–Terry is the choice of the larger utility under independent Gumbel noise."""
    rng, n = np.random.default_rng(0), 200_000
    for difference in (0.0, 0.4, -1.1):
        a, b = np.full(n, difference), np.zeros(n)
        gumbel = rng.gumbel(scale=rater.NOISE, size=(2, n))
        noisy = (a + gumbel[0] > b + gumbel[1]).mean()
        assert rater.compare(a, b, rng).mean() == pytest.approx(noisy, abs=0.006)


def test_the_true_utilities_reach_the_bayes_accuracy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 100_000))
    preferred = rater.compare(a, b, rng)
    assert ((a > b) == preferred).mean() == pytest.approx(rater.bayes_accuracy(a, b), abs=0.006)
    assert rater.bayes_accuracy(np.zeros(3), np.zeros(3)) == 0.5
