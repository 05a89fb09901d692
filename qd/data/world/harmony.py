"""Moves a piece to another mode, to test whether an embedder reacts to harmony."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

MINOR_THIRD = 3
P = TypeVar("P", bound=Any)


def in_other_mode(piece: P, scales: Mapping[str, tuple[int, ...]]) -> P:
    """Returns the piece in minor if its third is major, else in major; its key, rhythm and sounds stay the same.

    Each note keeps its degree of the scale, so melody and chords move together. Notes outside the scale stay.

    Args:
        piece: A piece of any edition of the world.
        scales: Semitones above the tonic of the seven degrees of each mode of this edition.
    """
    old = scales[piece.mode]
    mode = "major" if old[2] == MINOR_THIRD else "minor"
    moves = {before: after - before for before, after in zip(old, scales[mode], strict=True)}
    notes = tuple(replace(note, pitch=note.pitch + moves.get((note.pitch - piece.key) % 12, 0)) for note in piece.notes)
    return replace(piece, mode=mode, notes=notes)
