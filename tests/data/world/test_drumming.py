from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qd.data.world.composer import Piece, compose
from qd.data.world.drumming import with_drums, without_drums
from qd.data.world.genres import GENRES


def pieces(matches, count: int = 4) -> list[Piece]:
    composed = (compose(np.random.default_rng(seed), carelessness=0.0) for seed in range(10_000))
    return [next(piece for piece in composed if matches(piece)) for _ in range(count)]


def test_without_drums_nothing_else_changes():
    for piece in pieces(lambda p: p.hits):
        silent = without_drums(piece)
        assert silent.hits == () and silent.kit is None
        assert replace(silent, kit=piece.kit, hits=piece.hits) == piece


def test_restored_drums_are_those_of_the_composer_in_every_bar():
    swung = pieces(lambda p: p.hits and GENRES[p.genre].swing)  # a swung genre: the onsets must swing too
    for piece in swung:
        again = with_drums(without_drums(piece), np.random.default_rng(0))
        assert again.kit == piece.kit
        assert set(again.hits) >= set(piece.hits)
        assert replace(again, hits=piece.hits) == piece


@pytest.mark.parametrize("genre", [name for name, row in GENRES.items() if not row.drums])
def test_a_genre_without_drums_borrows_those_of_its_metre(genre):
    (piece,) = pieces(lambda p: p.genre == genre, 1)
    drummed = with_drums(piece, np.random.default_rng(0))
    sources = [row for row in GENRES.values() if row.kit == drummed.kit and row.steps_per_bar == 16]
    assert any({hit.drum for hit in drummed.hits} == set(row.drums) for row in sources)
    assert piece.seconds - 4 < max(hit.onset for hit in drummed.hits) < piece.seconds
    assert drummed == with_drums(piece, np.random.default_rng(0))
