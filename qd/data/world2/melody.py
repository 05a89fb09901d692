"""Melodies: one-bar motifs over the chords, and the ways in which a motif develops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qd.data.world2.patterns import RHYTHMS

LOWEST, HIGHEST = -4, 10  # scale degrees around the chord's root
REST_RATE = 0.12
FORMS = ("AABA", "ABAC", "AaBb", "AaAB", "ABab", "AAaa", "ABCa")
"""Four-bar phrases: a letter is a motif, its small letter the motif developed."""


class Tone(NamedTuple):
    """One note of a motif, in sixteenths and scale degrees above the root of the bar's chord."""

    step: int
    length: int
    degree: int


Motif = list[Tone]


def motif(density: str, steps_per_bar: int, rng: np.random.Generator) -> Motif:
    """Draws one bar of melody."""
    rhythms = RHYTHMS[steps_per_bar][density]
    degree, step, tones = int(rng.choice((0, 2, 4, 7))), 0, []
    for length in rhythms[int(rng.integers(len(rhythms)))]:
        if not step or rng.random() >= REST_RATE:
            tones.append(Tone(step, length, degree))
        degree = int(np.clip(degree + rng.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3)), LOWEST, HIGHEST))
        step += length
    return tones


def develop(tones: Motif, rng: np.random.Generator) -> Motif:
    """Returns the motif transposed, inverted, simplified, ornamented, delayed or with another end."""
    change = _CHANGES[int(rng.integers(len(_CHANGES)))]
    return [t._replace(degree=int(np.clip(t.degree, LOWEST, HIGHEST))) for t in change(tones, rng)]


def phrase(density: str, steps_per_bar: int, rng: np.random.Generator) -> list[Motif]:
    """Draws four bars: a form, its motifs, and their developments."""
    form = FORMS[int(rng.integers(len(FORMS)))]
    motifs = {letter: motif(density, steps_per_bar, rng) for letter in sorted(set(form.upper()))}
    motifs |= {letter.lower(): develop(motifs[letter], rng) for letter in sorted(motifs)}
    return [motifs[letter] for letter in form]


def _transposed(tones: Motif, rng: np.random.Generator) -> Motif:
    shift = int(rng.choice((-2, -1, 1, 2, 4)))
    return [t._replace(degree=t.degree + shift) for t in tones]


def _inverted(tones: Motif, rng: np.random.Generator) -> Motif:
    return [t._replace(degree=2 * tones[0].degree - t.degree) for t in tones]


def _simplified(tones: Motif, rng: np.random.Generator) -> Motif:
    """Keeps every second note and lets it sound until the next one that is kept."""
    kept = tones[::2]
    ends = [t.step for t in kept[1:]] + [tones[-1].step + tones[-1].length]
    return [t._replace(length=end - t.step) for t, end in zip(kept, ends, strict=True)]


def _ornamented(tones: Motif, rng: np.random.Generator) -> Motif:
    """Splits one long note in two; the second half is a neighbouring degree."""
    longest = max(range(len(tones)), key=lambda i: tones[i].length)
    long = tones[longest]
    if long.length < 2:
        return tones
    first = long.length // 2
    neighbour = Tone(long.step + first, long.length - first, long.degree + int(rng.choice((-1, 1))))
    return [*tones[:longest], long._replace(length=first), neighbour, *tones[longest + 1 :]]


def _other_end(tones: Motif, rng: np.random.Generator) -> Motif:
    return [*tones[:-1], tones[-1]._replace(degree=int(rng.choice((0, 2, 4, 7))))]


def _delayed(tones: Motif, rng: np.random.Generator) -> Motif:
    """Rests on the first beat where the rhythm allows it."""
    return tones[1:] if len(tones) > 2 else tones


_CHANGES = (_transposed, _inverted, _simplified, _ornamented, _other_end, _delayed)
