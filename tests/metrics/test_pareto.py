from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qd.metrics.pareto import common_reference, dominates, front, hypervolume, non_dominated
from qd.metrics.strategies import Strategy, dominance

SIZE = 6
GRID = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), min_size=1, max_size=9)
FLOATS = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=9)


def beats(p, q) -> bool:
    return p[0] >= q[0] and p[1] >= q[1] and tuple(p) != tuple(q)


def cells(points, reference=(0, 0)) -> int:
    """Returns the number of unit squares of the grid between the reference and a point."""
    return sum(
        any(x >= column + 1 and y >= row + 1 for x, y in points)
        for column, row in itertools.product(range(reference[0], SIZE), range(reference[1], SIZE))
    )


def union_area(points, reference) -> float:
    """Returns the area of the union, by inclusion and exclusion over all subsets of rectangles."""
    corners = [(max(x - reference[0], 0.0), max(y - reference[1], 0.0)) for x, y in points]
    return sum(
        (-1) ** (size + 1) * min(x for x, _ in chosen) * min(y for _, y in chosen)
        for size in range(1, len(corners) + 1)
        for chosen in itertools.combinations(corners, size)
    )


@given(st.one_of(GRID, FLOATS))
def test_the_front_holds_the_points_that_no_other_point_dominates(points):
    expected = [not any(beats(other, point) for other in points) for point in points]
    assert non_dominated(points).tolist() == expected
    distinct = sorted({point for point, on_front in zip(points, expected, strict=True) if on_front})
    assert front(points).tolist() == [list(point) for point in distinct]


@given(points=st.one_of(GRID, FLOATS), seed=st.integers(0, 99))
def test_the_order_of_the_points_does_not_matter(points, seed):
    order = np.random.default_rng(seed).permutation(len(points))
    shuffled = np.asarray(points)[order]
    assert non_dominated(shuffled).tolist() == non_dominated(points)[order].tolist()
    assert np.array_equal(front(shuffled), front(points))


def test_a_front_of_many_points_equals_all_pairs():
    points = np.random.default_rng(0).integers(0, 21, size=(1400, 2))
    points = points[points.sum(1) <= 20]  # a triangle: a long front, with many ties and duplicates
    beaten = dominates(points[:, None], points[None]).any(0)
    assert non_dominated(points).tolist() == (~beaten).tolist()
    assert 15 < len(front(points)) < non_dominated(points).sum()


@given(a=GRID, b=GRID)
def test_dominance_of_points_is_a_strict_order(a, b):
    table = dominates(np.asarray(a)[:, None], np.asarray(b)[None])
    assert table.tolist() == [[beats(p, q) for q in b] for p in a]
    assert not (table & dominates(np.asarray(b)[None], np.asarray(a)[:, None])).any()


@given(points=GRID, reference=st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)))
def test_hypervolume_counts_the_squares_of_a_grid(points, reference):
    assert hypervolume(points, reference) == cells(points, reference)


@given(points=FLOATS, reference=st.tuples(st.floats(-5, 5), st.floats(-5, 5)))
def test_hypervolume_equals_inclusion_and_exclusion(points, reference):
    assert hypervolume(points, reference) == pytest.approx(union_area(points, reference), abs=1e-9)


@given(points=FLOATS, more=FLOATS)
def test_hypervolume_is_that_of_the_front_and_grows_with_points(points, more):
    reference = [-5.0, -5.0]
    area = hypervolume(points, reference)
    assert hypervolume(front(points), reference) == pytest.approx(area)
    assert hypervolume([*points, *points], reference) == pytest.approx(area)
    together = hypervolume([*points, *more], reference)
    assert together >= max(area, hypervolume(more, reference)) - 1e-9
    assert together <= area + hypervolume(more, reference) + 1e-9


@given(points=FLOATS, shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)), scale=st.floats(0.1, 10))
def test_hypervolume_scales_with_the_units_of_the_points(points, shift, scale):
    area = hypervolume(points, [-1.0, 0.5])
    moved = np.asarray(points) * [scale, 1] + shift
    assert hypervolume(moved, np.array([-scale, 0.5]) + shift) == pytest.approx(scale * area, rel=1e-6, abs=1e-6)


def test_the_common_reference_is_the_worst_of_all_points():
    assert common_reference([[1, 5], [2, 4]], [[3, 0.5]]).tolist() == [1, 0.5]
    assert hypervolume([[1, 5], [2, 4]], common_reference([[1, 5], [2, 4]], [[3, 0.5]])) == 3.5
    with pytest.raises(ValueError, match="no strategy"):
        common_reference()


def strategy(seed: int, points: int, prompts: int, shift=(0.0, 0.0)) -> Strategy:
    """Values in eighths, so that their means over 2, 4, 8, … prompts, and ties between them, are exact."""
    rng = np.random.default_rng(seed)
    quality, diversity = rng.integers(-16, 17, size=(2, points, prompts)) / 8
    return Strategy(quality + shift[0], diversity + shift[1])


def naive_dominance(a, b, reference, n, seed):
    """Compares two strategies by a loop over resamples, points and pairs of points."""
    prompts = np.asarray(a.quality).shape[1]
    draws = np.random.default_rng(seed).integers(prompts, size=(n, prompts))

    def plane(values, draw):
        return [(np.mean(q[draw]), np.mean(d[draw])) for q, d in zip(values.quality, values.diversity, strict=True)]

    rows = []
    for draw in [np.arange(prompts), *draws]:
        first, second = plane(a, draw), plane(b, draw)
        wins = np.mean([any(beats(p, q) for p in first) for q in second])
        losses = np.mean([any(beats(q, p) for q in second) for p in first])
        rows.append([union_area(first, reference) - union_area(second, reference), wins, losses])
    whole, resamples = np.array(rows[0]), np.array(rows[1:])
    lo, hi = np.quantile(resamples, [0.025, 0.975], axis=0)
    return (resamples[:, 0] > 0).mean(), np.stack([whole, lo, hi], 1)


@pytest.mark.parametrize(("points_a", "points_b", "shift"), [(1, 1, 0.0), (4, 3, 0.25), (2, 6, 0.5), (5, 5, -0.125)])
def test_dominance_equals_a_naive_loop(points_a, points_b, shift):
    a, b = strategy(1, points_a, 16, (shift, 0)), strategy(2, points_b, 16)
    reference = [-1.0, -1.5]
    compared = dominance(a, b, reference, n=60, seed=3)
    probability, intervals = naive_dominance(a, b, reference, 60, 3)
    assert compared.probability == pytest.approx(probability)
    np.testing.assert_allclose([compared.difference, compared.coverage, compared.covered], intervals, atol=1e-12)


def test_swapped_strategies_give_the_mirrored_comparison():
    a, b = strategy(1, 4, 16, (0.25, 0.0)), strategy(2, 3, 16)
    forth, back = dominance(a, b, [-2, -2], n=200), dominance(b, a, [-2, -2], n=200)
    assert forth.probability == pytest.approx(1 - back.probability)
    assert 0.5 < forth.probability < 1
    assert forth.coverage == back.covered and forth.covered == back.coverage
    assert forth.difference.mean == pytest.approx(-back.difference.mean)
    assert (forth.difference.lo, forth.difference.hi) == pytest.approx((-back.difference.hi, -back.difference.lo))


def test_a_strategy_does_not_dominate_itself():
    a = strategy(5, 6, 20)
    compared = dominance(a, a, [-1, -1], n=100)
    assert compared.probability == 0.5 and compared.difference == (0, 0, 0)
    assert compared.coverage == compared.covered


def test_a_strategy_that_is_better_for_every_prompt_wins_in_every_resample():
    b = strategy(6, 5, 15)
    a = Strategy(b.quality + 0.1, b.diversity + 0.1)
    compared = dominance(a, b, [-3, -3], n=100)
    assert compared.probability == 1 and compared.coverage == (1, 1, 1) and compared.difference.lo > 0
    assert compared.covered.mean < 1  # no point of b exceeds the best points of a


def test_prompts_are_resampled_together():
    """A prompt that is hard for both strategies does not say which one is better."""
    hard = np.random.default_rng(7).normal(scale=10, size=50)
    b = Strategy(hard[None], np.ones((1, 50)))
    a = Strategy(hard[None] + 0.1, np.ones((1, 50)))
    assert dominance(a, b, [-20, 0], n=200).probability == 1


def test_more_prompts_give_narrower_intervals():
    widths = []
    for prompts in (20, 2000):
        compared = dominance(strategy(8, 3, prompts, (0.1, 0)), strategy(9, 3, prompts), [-1, -1], n=300)
        widths.append(compared.difference.hi - compared.difference.lo)
    assert widths[1] < 0.2 * widths[0]


def test_is_a_function_of_the_seed():
    a, b = strategy(1, 3, 9), strategy(2, 3, 9)
    assert dominance(a, b, [-1, -1], n=50, seed=4) == dominance(a, b, [-1, -1], n=50, seed=4)
    assert dominance(a, b, [-1, -1], n=50, seed=4) != dominance(a, b, [-1, -1], n=50, seed=5)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "shape .0,."),
        (np.empty((0, 2)), "shape .0, 2.*1 point"),
        ([1.0, 2.0], "shape .2,."),
        ([[1.0, 2.0, 3.0]], "shape .1, 3."),
        ([[1, 1], [float("nan"), 1], [1, float("inf")]], r"not finite.*\[1, 2\]"),
    ],
)
def test_points_of_a_wrong_shape_or_not_finite_are_refused(points, message):
    for function in (non_dominated, front, common_reference, lambda points: hypervolume(points, [0, 0])):
        with pytest.raises(ValueError, match=message):
            function(points)


@pytest.mark.parametrize("reference", [[0.0], [0.0, float("nan")], [[0, 0]]])
def test_a_reference_is_two_finite_numbers(reference):
    with pytest.raises(ValueError, match="reference.*two finite numbers"):
        hypervolume([[1, 1]], reference)
    with pytest.raises(ValueError, match="reference.*two finite numbers"):
        dominance(strategy(1, 1, 2), strategy(2, 1, 2), reference)


def broken(value: float) -> Strategy:
    quality, diversity = strategy(1, 2, 5)
    quality[1, 3] = value
    return Strategy(quality, diversity)


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (strategy(1, 2, 6), "a has 5 prompts and b 6"),
        (Strategy(np.ones((2, 5)), np.ones((3, 5))), r"b: quality.*\(2, 5\).*diversity.*\(3, 5\)"),
        (Strategy(np.ones((0, 5)), np.ones((0, 5))), "b has shape .0, 5.*1 point"),
        (Strategy(np.ones((2, 1)), np.ones((2, 1))), "b has shape .2, 1.*2 prompts"),
        (Strategy(np.ones(5), np.ones(5)), "b has shape .5,."),
        (broken(float("nan")), r"b is not finite.*\[\[1, 3\]\]"),
        (broken(float("-inf")), r"b is not finite.*\[\[1, 3\]\]"),
    ],
)
def test_strategies_that_cannot_be_compared_are_refused(b, message):
    with pytest.raises(ValueError, match=message):
        dominance(strategy(1, 2, 5), b, [0, 0])


def test_at_least_one_resample_is_required():
    with pytest.raises(ValueError, match="n is 0"):
        dominance(strategy(1, 2, 5), strategy(1, 2, 5), [0, 0], n=0)
