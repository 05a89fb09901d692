from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qd.metrics.bootstrap import bootstrap_interval
from qd.metrics.preference import agreement, pairwise_accuracy


def test_accuracy_by_hand():
    accuracy = pairwise_accuracy([0.3, -0.2, 0.1, 0.0], [1, 0, 0, 1], [0, 1, 2, 3], [4, 5, 6, 7])
    assert accuracy.mean == (1 + 1 + 0 + 0.5) / 4
    assert accuracy.lo < accuracy.mean < accuracy.hi


def test_with_one_unit_for_each_comparison_it_is_the_plain_bootstrap():
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.7
    own = np.arange(200)
    accuracy = pairwise_accuracy(np.where(right, 1.0, -1.0), np.ones(200), own, own, n=4000)
    plain = bootstrap_interval(right.astype(float), n=4000)
    assert accuracy.mean == plain.mean
    assert (accuracy.lo, accuracy.hi) == pytest.approx((plain.lo, plain.hi), abs=0.011)


def test_the_interval_covers_the_expected_accuracy_on_new_recordings():
    """All pairs of 20 recordings with a noisy scorer. Pairs share recordings, so that the accuracy of a new set varies
    far more than that of the same number of independent comparisons."""
    rng, size = np.random.default_rng(1), 20
    first, second = np.array(list(combinations(range(size), 2))).T

    def one_set() -> tuple[np.ndarray, np.ndarray]:
        truth, noise = rng.normal(size=(2, size))
        scores = truth + 1.2 * noise
        return scores[first] - scores[second], (truth[first] > truth[second]).astype(int)

    means, covered, widths = [], 0, []
    sets = [one_set() for _ in range(200)]
    expected = np.mean([((margin > 0) == preferred).mean() for margin, preferred in sets])
    for margin, preferred in sets:
        accuracy = pairwise_accuracy(margin, preferred, first, second, n=300)
        means.append(accuracy.mean)
        covered += accuracy.lo <= expected <= accuracy.hi
        widths.append(accuracy.hi - accuracy.lo)
    assert covered / len(sets) > 0.88
    assert np.mean(widths) > 3 * np.sqrt(expected * (1 - expected) / len(first))
    assert np.mean(widths) < 6 * np.std(means)


def naive_agreement(judgements: list[tuple[int, int, int]]) -> float | None:
    """Returns the share of agreeing judgements, by a loop over every two judgements of one pair."""
    by_pair = defaultdict(list)
    for a, b, p in judgements:
        by_pair[min(a, b), max(a, b)].append(p if a < b else 1 - p)
    agreeing = [x == y for winners in by_pair.values() for x, y in combinations(winners, 2)]
    return sum(agreeing) / len(agreeing) if agreeing else None


judgement = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)).filter(lambda j: j[0] != j[1])


@given(st.lists(judgement, min_size=1, max_size=20))
def test_agreement_equals_a_naive_loop(judgements):
    estimated = agreement(*zip(*judgements, strict=True))
    assert (estimated.rate if estimated else None) == pytest.approx(naive_agreement(judgements))


def test_the_ceiling_is_the_accuracy_of_the_best_scorer():
    rng, pairs, raters, p = np.random.default_rng(0), 3000, 3, 0.8
    first = np.repeat(np.arange(pairs) * 2, raters)
    better = np.repeat(rng.integers(0, 2, pairs), raters)
    preferred = np.where(rng.random(pairs * raters) < p, better, 1 - better)
    estimated = agreement(first, first + 1, preferred)
    assert estimated.pairs == pairs
    assert estimated.rate == pytest.approx(p**2 + (1 - p) ** 2, abs=0.02)
    assert estimated.ceiling == pytest.approx((preferred == better).mean(), abs=0.02)


def test_refuses_bad_input():
    with pytest.raises(ValueError, match="ties"):
        pairwise_accuracy([0.1], [0.5], [0], [1])
    with pytest.raises(ValueError, match="1 or more"):
        pairwise_accuracy([], [], [], [])
    with pytest.raises(ValueError, match=r"\(2,\)"):
        pairwise_accuracy([1, 2], [1], [0], [1])
