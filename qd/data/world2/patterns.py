"""Scales, melody rhythms, chord and bass patterns, in sixteenths ("steps")."""

from __future__ import annotations

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
}
DARK_MODES = ("minor", "dorian", "phrygian", "harmonic minor")

# One bar of melody by how dense it is: the lengths of its notes in steps.
RHYTHMS = {
    16: {
        "sparse": ((16,), (8, 8), (12, 4), (4, 12), (6, 10), (10, 6)),
        "medium": ((4, 4, 4, 4), (6, 2, 4, 4), (4, 2, 2, 8), (8, 4, 4), (6, 6, 4), (2, 6, 4, 4), (3, 3, 2, 8),
                   (4, 8, 4)),
        "busy": ((2,) * 8, (2, 2, 4, 2, 2, 4), (3, 3, 2, 2, 2, 4), (1, 1, 2, 4, 1, 1, 2, 4), (2, 1, 1, 2, 2, 4, 2, 2),
                 (4, 1, 1, 1, 1, 4, 2, 2), (3, 1, 3, 1, 3, 1, 4), (2, 2, 2, 1, 1, 2, 2, 2, 2)),
    },
    12: {
        "sparse": ((12,), (8, 4), (4, 8)),
        "medium": ((4, 4, 4), (6, 2, 4), (8, 4), (4, 2, 2, 4), (2, 2, 8), (4, 6, 2)),
        "busy": ((2, 2, 2, 2, 2, 2), (4, 2, 2, 2, 2), (3, 1, 2, 2, 4), (1, 1, 2, 4, 4), (2, 2, 4, 2, 2)),
    },
}  # fmt: skip

# Chords struck together, as (step, length in steps).
CHORD_STYLES = {
    "sustained": ((0, 16),),
    "halves": ((0, 8), (8, 8)),
    "stabs": ((2, 2), (6, 1), (10, 2), (14, 1)),
    "syncopated stabs": ((0, 1), (3, 1), (6, 2), (11, 1), (14, 2)),
    "waltz": ((4, 3), (8, 3)),
    "waltz held": ((0, 12),),
    "waltz light": ((4, 2), (8, 1), (10, 1)),
    "comping": ((0, 3), (6, 2), (14, 2)),
    "late comping": ((3, 2), (7, 3), (13, 2)),
    "charleston": ((0, 4), (6, 6)),
    "strum": ((0, 4), (4, 2), (6, 2), (10, 2), (12, 4)),
    "island strum": ((0, 3), (3, 1), (6, 2), (8, 3), (11, 1), (14, 2)),
    "quarters": tuple((step, 3) for step in range(0, 16, 4)),
    "drive": tuple((step, 2) for step in range(0, 16, 2)),
    "gallop": tuple((4 * beat + step, length) for beat in range(4) for step, length in ((0, 2), (2, 1), (3, 1))),
    "offbeat sixteenths": ((2, 1), (3, 1), (7, 1), (10, 1), (15, 1)),
    "scratch": ((0, 1), (3, 1), (4, 1), (6, 1), (10, 1), (11, 1), (14, 1)),
    "offbeat": ((4, 2), (12, 2)),
    "double offbeat": ((2, 1), (6, 1), (10, 1), (14, 1)),
    "bossa": ((0, 3), (3, 3), (8, 2), (11, 3)),
    "bossa late": ((2, 2), (6, 3), (10, 2), (13, 3)),
}
# Broken chords: the steps between two notes, and the order of the chord's notes.
ARPEGGIO_STYLES = {
    "fast arpeggio": (1, (0, 1, 2, 3)),
    "arpeggio": (2, (0, 1, 2, 1)),
    "falling arpeggio": (2, (3, 2, 1, 0)),
    "slow arpeggio": (4, (0, 1, 2, 1)),
    "alberti": (2, (0, 2, 1, 2)),
    "rolling": (2, (0, 1, 2, 3, 2, 1)),
}

# Bass lines as (step, length in steps, scale degrees above the root of the chord).
BASS_STYLES = {
    "pedal": ((0, 16, 0),),
    "slow": ((0, 10, 0), (10, 6, 4)),
    "pulse": tuple((step, 2, 0) for step in (2, 3, 6, 7, 10, 11, 14, 15)),
    "rolling": tuple((step, 1, degree) for step, degree in zip(range(16), (0, 0, 7, 0, 0, 2, 0, 7) * 2, strict=True)),
    "root": ((0, 4, 0), (8, 4, 4)),
    "waltz": ((0, 4, 0),),
    "waltz walking": ((0, 4, 0), (4, 4, 2), (8, 4, 4)),
    "walking": ((0, 4, 0), (4, 4, 2), (8, 4, 4), (12, 4, 5)),
    "walking down": ((0, 4, 7), (4, 4, 5), (8, 4, 4), (12, 4, 2)),
    "two": ((0, 7, 0), (8, 7, 4)),
    "drive": tuple((step, 2, 0) for step in range(0, 16, 2)),
    "riff": ((0, 2, 0), (3, 2, 0), (6, 2, 2), (8, 2, 0), (11, 2, 4), (14, 2, 3)),
    "syncopated": ((0, 3, 0), (3, 3, 0), (8, 2, 4), (10, 2, 0), (14, 2, 7)),
    "slap": ((0, 1, 0), (3, 1, 7), (6, 2, 0), (10, 1, 0), (11, 1, 7), (14, 2, 4)),
    "dub": ((0, 3, 0), (6, 2, 2), (8, 4, 4), (14, 2, 0)),
    "octaves": tuple((step, 2, 7 * (step // 2 % 2)) for step in range(0, 16, 2)),
    "bossa": ((0, 6, 0), (6, 2, 4), (8, 6, 4), (14, 2, 0)),
}
