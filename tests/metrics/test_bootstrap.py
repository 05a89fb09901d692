from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qd.metrics.bootstrap import bootstrap_interval, defined_interval, paired_difference

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=30)


def naive_interval(values: list[float], level: float, n: int, seed: int) -> tuple[float, float]:
    draws = np.random.default_rng(seed).integers(len(values), size=(n, len(values)))
    means = sorted(sum(values[i] for i in draw) / len(values) for draw in draws.tolist())

    def quantile(share):
        place = share * (n - 1)
        below = int(place)
        above = min(below + 1, n - 1)
        return means[below] + (place - below) * (means[above] - means[below])

    return quantile((1 - level) / 2), quantile((1 + level) / 2)


@given(values=VALUES, level=st.sampled_from([0.5, 0.9, 0.95]), seed=st.integers(0, 99))
def test_equals_a_naive_loop(values, level, seed):
    interval = bootstrap_interval(values, level, n=40, seed=seed)
    assert interval.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert (interval.lo, interval.hi) == pytest.approx(naive_interval(values, level, 40, seed), abs=1e-9)


def test_covers_the_true_mean_about_as_often_as_the_level_states():
    rng, truth, hits, trials = np.random.default_rng(0), 0.3, 0, 400
    for trial in range(trials):
        interval = bootstrap_interval(rng.normal(truth, 1.0, size=50), level=0.9, n=400, seed=trial)
        hits += interval.lo <= truth <= interval.hi
    assert 0.84 < hits / trials < 0.94  # the percentile interval of 50 prompts is a little narrow


def test_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(size=400)
    interval = bootstrap_interval(values)
    assert interval.hi - interval.lo == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_paired_difference_takes_out_what_the_prompts_share():
    rng = np.random.default_rng(2)
    prompts = rng.normal(0, 10, size=60)
    a, b = prompts + 0.5 + rng.normal(0, 0.1, 60), prompts + rng.normal(0, 0.1, 60)
    difference = paired_difference(a, b)
    assert difference == bootstrap_interval(a - b)
    assert 0.4 < difference.lo < 0.5 < difference.hi < 0.6
    assert bootstrap_interval(a).lo < bootstrap_interval(b).mean  # without pairing, the difference is not significant


def test_depends_only_on_the_seed():
    values = np.random.default_rng(3).normal(size=20)
    np.random.seed(1)
    first = bootstrap_interval(values, seed=5)
    np.random.seed(2)
    assert bootstrap_interval(values, seed=5) == first
    assert bootstrap_interval(values, seed=6) != first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_prompt": [1.0]}, "2 prompts"),
        ({"per_prompt": [[1.0, 2.0]]}, "shape"),
        ({"per_prompt": [1.0, float("nan"), 2.0, float("inf")]}, r"prompts \[1, 3\]"),
        ({"level": 1.0}, "level is"),
        ({"level": 95}, "level is"),
        ({"n": 0}, "n is"),
    ],
)
def test_refuses_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**{"per_prompt": [1.0, 2.0], **changes})


def test_refuses_to_pair_different_prompts():
    with pytest.raises(ValueError, match="each of the same"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


def test_prompts_without_a_value_are_left_out():
    assert defined_interval([0.1, np.nan, 0.4, 0.3]) == bootstrap_interval([0.1, 0.4, 0.3])
    assert defined_interval([0.1, 0.4]) == bootstrap_interval([0.1, 0.4])
    for values in ([np.nan, 0.4], [np.nan, np.nan]):
        assert np.isnan(defined_interval(values)).all()
