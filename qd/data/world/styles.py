"""Scales, melody rhythms, chord and bass patterns, in sixteenths ("steps")."""

from __future__ import annotations

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
}

# One bar of lead rhythm: note lengths in steps, by how busy the melody is.
RHYTHMS = {
    (16, "sparse"): ((16,), (8, 8), (12, 4), (4, 12)),
    (16, "medium"): ((4, 4, 4, 4), (6, 2, 4, 4), (4, 2, 2, 8), (8, 4, 4), (6, 6, 4)),
    (16, "busy"): (
        (2,) * 8,
        (2, 2, 4, 2, 2, 4),
        (3, 3, 2, 2, 2, 4),
        (1, 1, 2, 4, 1, 1, 2, 4),
        (2, 1, 1, 2, 2, 4, 2, 2),
    ),
    (12, "medium"): ((4, 4, 4), (6, 2, 4), (8, 4), (4, 2, 2, 4), (12,)),
}


# Chord onsets of each style as (step, length in steps); ARPEGGIO_STYLES has the others.
CHORD_STYLES = {
    "sustained": ((0, 16),),
    "stabs": ((2, 2), (6, 1), (10, 2), (14, 1)),
    "waltz": ((4, 3), (8, 3)),
    "comping": ((0, 3), (6, 2), (14, 2)),
    "strum": ((0, 4), (4, 2), (6, 2), (10, 2), (12, 4)),
    "drive": tuple((step, 2) for step in range(0, 16, 2)),
    "offbeat sixteenths": ((2, 1), (3, 1), (7, 1), (10, 1), (15, 1)),
    "offbeat": ((4, 2), (12, 2)),
    "march": ((4, 2), (12, 2)),
    "bossa": ((0, 3), (3, 3), (8, 2), (11, 3)),
}
ARPEGGIO_STYLES = {"arpeggio": 1, "slow arpeggio": 2}  # steps between the notes of a broken chord

# Bass lines as (step, length in steps, scale degrees above the root of the chord).
BASS_STYLES = {
    "pedal": ((0, 16, 0),),
    "pulse": tuple((step, 2, 0) for step in (2, 3, 6, 7, 10, 11, 14, 15)),
    "root": ((0, 4, 0), (8, 4, 4)),
    "walking": ((0, 4, 0), (4, 4, 2), (8, 4, 4), (12, 4, 5)),
    "drive": tuple((step, 2, 0) for step in range(0, 16, 2)),
    "syncopated": ((0, 3, 0), (3, 3, 0), (8, 2, 4), (10, 2, 0), (14, 2, 7)),
    "octaves": tuple((step, 2, 7 * (step // 2 % 2)) for step in range(0, 16, 2)),
    "march": ((0, 4, 0), (8, 4, 4)),
    "bossa": ((0, 6, 0), (6, 2, 4), (8, 6, 4), (14, 2, 0)),
}
