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
    found = pairwise_accuracy([0.3, -0.2, 0.1, 0.0], [1, 0, 0, 1], [0, 1, 2, 3], [4, 5, 6, 7])
    assert found.mean == (1 + 1 + 0 + 0.5) / 4
    assert found.lo < found.mean < found.hi


def test_with_a_unit_for_each_comparison_it_is_the_plain_bootstrap():
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.7
    own = np.arange(200)
    found = pairwise_accuracy(np.where(right, 1.0, -1.0), np.ones(200), own, own, n=4000)
    plain = bootstrap_interval(right.astype(float), n=4000)
    assert found.mean == plain.mean
    assert (found.lo, found.hi) == pytest.approx((plain.lo, plain.hi), abs=0.011)


def test_the_interval_covers_what_new_recordings_would_give():
    """All pairs of 20 recordings with a noisy judge. Pairs share recordings, so that the accuracy of a new set varies
    far more than that of as many independent comparisons."""
    rng, size = np.random.default_rng(1), 20
    first, second = np.array(list(combinations(range(size), 2))).T

    def one_set() -> tuple[np.ndarray, np.ndarray]:
        truth, noise = rng.normal(size=(2, size))
        judged = truth + 1.2 * noise
        return judged[first] - judged[second], (truth[first] > truth[second]).astype(int)

    means, covered, widths = [], 0, []
    sets = [one_set() for _ in range(200)]
    expected = np.mean([((margin > 0) == preferred).mean() for margin, preferred in sets])
    for margin, preferred in sets:
        found = pairwise_accuracy(margin, preferred, first, second, n=300)
        means.append(found.mean)
        covered += found.lo <= expected <= found.hi
        widths.append(found.hi - found.lo)
    assert covered / len(sets) > 0.88
    assert np.mean(widths) > 3 * np.sqrt(expected * (1 - expected) / len(first))
    assert np.mean(widths) < 6 * np.std(means)


def naive_agreement(judged: list[tuple[int, int, int]]) -> float | None:
    """Every two judgements of one pair, one by one."""
    by_pair = defaultdict(list)
    for a, b, p in judged:
        by_pair[min(a, b), max(a, b)].append(p if a < b else 1 - p)
    agreeing = [x == y for winners in by_pair.values() for x, y in combinations(winners, 2)]
    return sum(agreeing) / len(agreeing) if agreeing else None


judgement = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)).filter(lambda j: j[0] != j[1])


@given(st.lists(judgement, min_size=1, max_size=20))
def test_agreement_equals_a_naive_loop(judged):
    found = agreement(*zip(*judged, strict=True))
    assert (found.rate if found else None) == pytest.approx(naive_agreement(judged))


def test_the_ceiling_is_the_best_judges_accuracy():
    rng, pairs, raters, p = np.random.default_rng(0), 3000, 3, 0.8
    first = np.repeat(np.arange(pairs) * 2, raters)
    better = np.repeat(rng.integers(0, 2, pairs), raters)
    preferred = np.where(rng.random(pairs * raters) < p, better, 1 - better)
    found = agreement(first, first + 1, preferred)
    assert found.pairs == pairs
    assert found.rate == pytest.approx(p**2 + (1 - p) ** 2, abs=0.02)
    assert found.ceiling == pytest.approx((preferred == better).mean(), abs=0.02)


def test_refuses_bad_input():
    with pytest.raises(ValueError, match="ties"):
        pairwise_accuracy([0.1], [0.5], [0], [1])
    with pytest.raises(ValueError, match="1 or more"):
        pairwise_accuracy([], [], [], [])
    with pytest.raises(ValueError, match=r"\(2,\)"):
        pairwise_accuracy([1, 2], [1], [0], [1])
