"""Comparisons out of ratings, and recordings held out so that none is on both sides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from qd.data.ratings import Ratings

PARTNERS = 32
"""Others that a recording is compared with in one sitting; above, they are drawn at random."""


@dataclass(frozen=True)
class Comparisons:
    """Pairs of recordings, ``(comparisons,)`` each.

    Attributes:
        first, second: numbers of the recordings.
        preferred: 1 where the first was better, 0 where the second was, ½ for a tie.
        weight: how many comparisons each counts for: the difference between the ratings, 1 at least.
    """

    first: np.ndarray
    second: np.ndarray
    preferred: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def decided(self) -> np.ndarray:
        """True where it is no tie."""
        return self.preferred != 0.5


@dataclass(frozen=True)
class Split:
    """Recordings to learn from, and others to be measured on.

    Attributes:
        held_out: True where a recording is held out, ``(recordings,)``.
        unit: what was held out as a whole, ``(recordings,)``: recordings that are compared with each other and with no
            others, or each recording alone.
    """

    held_out: np.ndarray
    unit: np.ndarray


def comparisons(ratings: Ratings, chosen: np.ndarray | None = None, seed: int = 0) -> Comparisons:
    """All pairs within each sitting, of the recordings ``chosen`` (``(recordings,)``, all if None) alone."""
    rng = np.random.default_rng(seed)
    pairs: list[tuple[int, int, float]] = []
    for sitting in ratings.sittings:
        numbers = [number for number in sitting if chosen is None or chosen[number]]
        pairs += [(a, b, sitting[a] - sitting[b]) for a, b in _pairs(numbers, rng)]
    first, second = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    difference = np.array([pair[2] for pair in pairs], dtype=np.float64)
    return Comparisons(first, second, (np.sign(difference) + 1) / 2, np.maximum(np.abs(difference), 1.0))


def split_recordings(ratings: Ratings, share: float, seed: int = 0) -> Split:
    """Holds out a share of the recordings.

    Where comparisons fall apart into groups that share no recording (one group a prompt, say), whole groups are held
    out, and no comparison is lost. Where most recordings hang together, single ones are held out, and a comparison of a
    held-out one with another counts on neither side. To lose few of a file of comparisons, a random recording is held
    out with those that it was compared with, then those that they were compared with, and so on; of ratings, which make
    as many comparisons as one likes, any are taken.

    Args:
        ratings: of the recordings.
        share: of the recordings, in (0, 1).
        seed: of the choice.

    Raises:
        ValueError: either side has no comparison that is no tie.
    """
    rng, count = np.random.default_rng(seed), len(ratings.paths)
    shuffled = rng.permutation(count)
    graph = _compared(ratings, shuffled)
    component = connected_components(graph, directed=False)[1]  # by the new names
    sizes = np.bincount(component)
    if sizes.max() <= count / 2:
        unit = component[shuffled]
        order = rng.permutation(len(sizes))
        enough = 1 + int(np.searchsorted(np.cumsum(sizes[order]), share * count))
        held_out = np.isin(unit, order[: min(enough, len(order) - 1)])
    else:
        unit = np.arange(count)
        start = np.flatnonzero(component == sizes.argmax())[0]  # where most hang together, or too few are reached
        reached = breadth_first_order(graph, start, directed=False, return_predecessors=False)
        order = reached if ratings.kind == "pairwise" else unit
        chosen = np.argsort(shuffled)[order[: math.ceil(share * count)]]
        held_out = np.isin(unit, chosen[: count - 1])
    for side, chosen in {"to learn from": ~held_out, "held out": held_out}.items():
        if not comparisons(ratings, chosen).decided.any():
            raise ValueError(
                f"{int(chosen.sum())} of {count} rated recordings are {side}, and no comparison among them is decided: "
                f"rate more, or change validation_share (now {share:g})"
            )
    return Split(held_out, unit)


def _compared(ratings: Ratings, names: np.ndarray) -> coo_array:
    """The graph of what shares a sitting, each recording under its new name; a sitting of many is a chain."""
    chain = [pair for sitting in ratings.sittings for pair in zip(sitting, list(sitting)[1:], strict=False)]
    rows, columns = names[np.array(chain, dtype=np.int64).T]
    return coo_array((np.ones(len(chain)), (rows, columns)), shape=(len(names), len(names)))


def _pairs(numbers: list[int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """All pairs; of many, a ring in random order in which each meets :data:`PARTNERS` others."""
    if len(numbers) <= PARTNERS + 1:
        return list(combinations(numbers, 2))
    ring = rng.permutation(numbers)
    steps = range(1, PARTNERS // 2 + 1)
    return [(int(a), int(b)) for step in steps for a, b in zip(ring, np.roll(ring, -step), strict=True)]
