"""The same piece with and without drums: does an ear hear a recording, or whether somebody drums?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qd.data.world.composer import Piece, bar_hits, onset
from qd.data.world.genres import GENRES, Genre


def without_drums(piece: Piece) -> Piece:
    """The piece as it sounds when its drummer stays at home."""
    return replace(piece, kit=None, hits=())


def with_drums(piece: Piece, rng: np.random.Generator) -> Piece:
    """The piece with drums in every bar: its genre's own, or for a genre without any those of one of its metre.

    Args:
        piece: with or without drums; hits that it has are replaced.
        rng: draws the lending genre.
    """
    genre = GENRES[piece.genre]
    lender = genre if genre.drums else _lender(genre, rng)
    bar_seconds = onset(genre, piece.tempo, 1, 0)
    bars = range(round(piece.seconds / bar_seconds))
    hits = tuple(hit for bar in bars for hit in bar_hits(genre, piece.tempo, bar, lender.drums))
    return replace(piece, kit=lender.kit, hits=hits)


def _lender(genre: Genre, rng: np.random.Generator) -> Genre:
    lenders = [other for other in GENRES.values() if other.drums and other.steps_per_bar == genre.steps_per_bar]
    return lenders[int(rng.integers(len(lenders)))]
