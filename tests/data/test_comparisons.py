from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qd.data.comparisons import PARTNERS, comparisons, split_recordings
from qd.data.ratings import Ratings


def ratings(*sittings: dict[int, float]) -> Ratings:
    count = 1 + max(number for sitting in sittings for number in sitting)
    paths = tuple(Path(f"{number}.wav") for number in range(count))
    return Ratings(paths, sittings, len(sittings), "pairwise", 0)


def test_pairs_within_each_sitting():
    pairs = comparisons(ratings({0: 4.5, 1: 2.0, 2: 4.5}, {3: 1.0}, {2: 0.0, 0: -1.0}))
    assert list(zip(pairs.first, pairs.second, pairs.preferred, pairs.weight, strict=True)) == [
        (0, 1, 1.0, 2.5),
        (0, 2, 0.5, 1.0),
        (1, 2, 0.0, 2.5),
        (2, 0, 1.0, 1.0),
    ]
    assert pairs.decided.tolist() == [True, False, True, True]


def test_comparisons_contain_only_chosen_recordings():
    pairs = comparisons(ratings({0: 1.0, 1: 2.0, 2: 3.0}), np.array([True, False, True]))
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0], [2])
    assert len(comparisons(ratings({0: 1.0, 1: 2.0}), np.array([True, False]))) == 0


def test_in_a_long_sitting_every_recording_has_equally_many_partners():
    size = 3 * PARTNERS
    pairs = comparisons(ratings({number: float(number) for number in range(size)}))
    assert (np.bincount(np.concatenate([pairs.first, pairs.second])) == PARTNERS).all()
    assert len({frozenset(pair) for pair in zip(pairs.first, pairs.second, strict=True)}) == size * PARTNERS // 2
    assert ((pairs.first > pairs.second) == (pairs.preferred == 1)).all()


@given(st.integers(0, 50), st.floats(0.1, 0.5))
def test_whole_groups_are_held_out(seed, share):
    """Twelve prompts of three recordings each: no comparison is lost, and no recording is on both sides."""
    sittings = [{3 * group + i: float(i) for i in range(3)} for group in range(12)]
    data = ratings(*sittings, *sittings[::2])
    split = split_recordings(data, share, seed)
    assert (split.held_out.reshape(12, 3) == split.held_out[::3, None]).all()
    assert (np.unique(split.unit.reshape(12, 3), axis=1).shape) == (12, 1)
    assert share * 36 <= split.held_out.sum() <= share * 36 + 3
    total = sum(len(comparisons(data, chosen)) for chosen in (split.held_out, ~split.held_out))
    assert total == len(comparisons(data))


@given(st.integers(0, 50))
def test_connected_recordings_are_held_out_one_by_one(seed):
    data = ratings(*({a: 1.0, b: 0.0} for a, b in combinations(range(20), 2)))
    split = split_recordings(data, 0.3, seed)
    assert split.held_out.sum() == 6
    assert split.unit.tolist() == list(range(20))
    learned, held_out = comparisons(data, ~split.held_out), comparisons(data, split.held_out)
    assert len(learned) == 14 * 13 / 2 and len(held_out) == 6 * 5 / 2
    assert not {*learned.first, *learned.second} & {*held_out.first, *held_out.second}


def test_few_comparisons_cross_the_sides():
    """On a ring, neighbours are held out: only two of a hundred comparisons cross the sides."""
    data = ratings(*({number: 1.0, (number + 1) % 100: 0.0} for number in range(100)))
    split = split_recordings(data, 0.2, seed=3)
    assert split.held_out.sum() == 20
    total = sum(len(comparisons(data, chosen)) for chosen in (split.held_out, ~split.held_out))
    assert total == 98


@given(st.integers(0, 50))
def test_held_out_recordings_come_from_the_largest_group(seed):
    """A ring of sixty recordings and twenty separate pairs."""
    ring = [{number: 1.0, (number + 1) % 60: 0.0} for number in range(60)]
    split = split_recordings(ratings(*ring, *({60 + 2 * i: 1.0, 61 + 2 * i: 0.0} for i in range(20))), 0.2, seed)
    assert split.held_out.sum() == 20 and not split.held_out[60:].any()


def test_held_out_ratings_of_one_long_list_are_random():
    """They are not neighbours in the file, which may be samples of one model."""
    data = replace(ratings({number: float(number) for number in range(100)}), kind="absolute")
    held_out = np.flatnonzero(split_recordings(data, 0.2, seed=3).held_out)
    assert len(held_out) == 20 and np.ptp(held_out) > 50


def test_the_split_is_a_function_of_the_seed():
    data = ratings(*({a: 1.0, b: 0.0} for a, b in combinations(range(20), 2)))
    first, again, other = (split_recordings(data, 0.3, seed).held_out for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_too_few_ratings_are_refused():
    with pytest.raises(ValueError, match="no comparison .*validation_share .*0.2"):
        split_recordings(ratings({0: 1.0, 1: 0.0}), 0.2)
    with pytest.raises(ValueError, match="held out"):
        split_recordings(ratings({0: 1.0, 1: 0.0}, {2: 1.0, 3: 1.0}, {4: 1.0, 5: 1.0}), 0.2)
