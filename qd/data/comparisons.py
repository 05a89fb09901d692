"""Turns ratings into comparisons, and holds out recordings so that none is on both sides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from qd.data.ratings import Ratings

PARTNERS = 32
"""Most partners of a recording in one sitting; a larger sitting uses random pairs."""


@dataclass(frozen=True)
class Comparisons:
    """Pairs of recordings, ``(comparisons,)`` each.

    Attributes:
        first, second: Numbers of the recordings.
        preferred: 1 if the first was better, 0 if the second was better, ½ for a tie.
        weight: Weight of each comparison: the difference between the ratings, at least 1.
    """

    first: np.ndarray
    second: np.ndarray
    preferred: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def decided(self) -> np.ndarray:
        """True where the comparison is not a tie."""
        return self.preferred != 0.5


@dataclass(frozen=True)
class Split:
    """Split of the recordings into training and held-out ones.

    Attributes:
        held_out: True where a recording is held out, ``(recordings,)``.
        unit: Number of the unit that is held out as a whole, ``(recordings,)``: a group of recordings that are compared
            only with each other, or a single recording.
    """

    held_out: np.ndarray
    unit: np.ndarray


def comparisons(ratings: Ratings, chosen: np.ndarray | None = None, seed: int = 0) -> Comparisons:
    """Returns all pairs within each sitting; ``chosen``, ``(recordings,)`` bool, selects recordings (None: all)."""
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

    If the comparisons form groups that share no recording (for example one group per prompt), whole groups are held
    out, and no comparison is lost. If more than half of the recordings are connected, single recordings are held out,
    and a comparison between the two sides is dropped. To drop few pairwise comparisons, the held-out set grows from a
    random recording to its partners, then to their partners, and so on. Absolute ratings give plenty of comparisons,
    so their held-out recordings are drawn at random.

    Args:
        ratings: Ratings of the recordings.
        share: Share of the recordings to hold out, in (0, 1).
        seed: Seed of the choice.

    Raises:
        ValueError: Either side has no comparison other than ties.
    """
    rng, count = np.random.default_rng(seed), len(ratings.paths)
    shuffled = rng.permutation(count)
    graph = _compared(ratings, shuffled)
    component = connected_components(graph, directed=False)[1]  # numbered after the shuffle
    sizes = np.bincount(component)
    if sizes.max() <= count / 2:
        unit = component[shuffled]
        order = rng.permutation(len(sizes))
        enough = 1 + int(np.searchsorted(np.cumsum(sizes[order]), share * count))
        held_out = np.isin(unit, order[: min(enough, len(order) - 1)])
    else:
        unit = np.arange(count)
        start = np.flatnonzero(component == sizes.argmax())[0]  # in the largest group, to reach enough
        reached = breadth_first_order(graph, start, directed=False, return_predecessors=False)
        order = reached if ratings.kind == "pairwise" else unit
        chosen = np.argsort(shuffled)[order[: math.ceil(share * count)]]
        held_out = np.isin(unit, chosen[: count - 1])
    for side, chosen in {"for training": ~held_out, "held out": held_out}.items():
        if not comparisons(ratings, chosen).decided.any():
            raise ValueError(
                f"{int(chosen.sum())} of {count} recordings are {side}, but no comparison among them has a winner: "
                f"rate more, or change validation_share (now {share:g})"
            )
    return Split(held_out, unit)


def _compared(ratings: Ratings, names: np.ndarray) -> coo_array:
    """Returns the graph of recordings that share a sitting, renumbered by ``names``; each sitting becomes a chain."""
    chain = [pair for sitting in ratings.sittings for pair in zip(sitting, list(sitting)[1:], strict=False)]
    rows, columns = names[np.array(chain, dtype=np.int64).T]
    return coo_array((np.ones(len(chain)), (rows, columns)), shape=(len(names), len(names)))


def _pairs(numbers: list[int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Returns all pairs or, in a large sitting, a ring in random order with :data:`PARTNERS` partners each."""
    if len(numbers) <= PARTNERS + 1:
        return list(combinations(numbers, 2))
    ring = rng.permutation(numbers)
    steps = range(1, PARTNERS // 2 + 1)
    return [(int(a), int(b)) for step in steps for a, b in zip(ring, np.roll(ring, -step), strict=True)]
