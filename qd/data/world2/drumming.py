"""Adds drums to a piece and removes them, to test whether an embedder reacts to the recording or only to drums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qd.data.world2.composer import bar_hits, draw_kit, onset
from qd.data.world2.genres import GENRES, Genre
from qd.data.world2.piece import Piece


def without_drums(piece: Piece) -> Piece:
    """Returns the piece without its drums."""
    return replace(piece, kit=None, hits=())


def with_drums(piece: Piece, rng: np.random.Generator) -> Piece:
    """Returns the piece with drums in every bar.

    The drums are the genre's own or, for a genre without drums, those of another genre with the same bar length.

    Args:
        piece: Piece with or without drums; existing hits are replaced.
        rng: Draws the groove, the kit and the other genre.
    """
    genre = GENRES[piece.genre]
    source = genre if genre.grooves else _genre_with_drums(genre, rng)
    groove = source.grooves[int(rng.integers(len(source.grooves)))]
    bars = range(round(piece.seconds / onset(genre.steps_per_bar, piece.tempo, 0.0, 1, 0)))
    hits = tuple(hit for bar in bars for hit in bar_hits(genre, piece.tempo, piece.swing, bar, groove))
    return replace(piece, kit=draw_kit(source.kit, rng), hits=hits)


def _genre_with_drums(genre: Genre, rng: np.random.Generator) -> Genre:
    options = [other for other in GENRES.values() if other.grooves and other.steps_per_bar == genre.steps_per_bar]
    return options[int(rng.integers(len(options)))]
