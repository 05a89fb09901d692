"""Composes a piece of music, as notes and drum hits in seconds, from a random generator.

A piece draws a genre, then tempo, key, mode, chords, timbres and an arrangement from the genre's row. Its melody
repeats two motifs over the chords. The simulated players can be careless: at rates drawn for each piece they play wrong
neighbouring notes and unsteady onsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qd.data.world.genres import GENRES, Genre
from qd.data.world.styles import ARPEGGIO_STYLES, BASS_STYLES, CHORD_STYLES, RHYTHMS, SCALES

MINIMUM_SECONDS = 16.0
PARTS = ("lead", "chords", "bass")
LEAD_CENTRE, CHORD_CENTRE, BASS_CENTRE = 72, 58, 38  # MIDI pitches around which the parts play
STRONG, SOFT = 1.0, 0.45  # velocities of the marks "x" and "o" of a drum pattern
KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

# Which parts play in the sections of a piece. The lead rests in at most one section out of four.
FULL = ("lead", "chords", "bass", "drums")
ARRANGEMENTS = (
    (("chords", "lead"), FULL, FULL, ("lead", "bass", "drums")),
    (FULL, ("chords", "bass", "drums"), FULL, ("lead", "chords")),
    (("lead", "bass", "drums"), FULL, ("lead", "chords"), FULL),
    (FULL, FULL, FULL, FULL),
    (("lead",), ("lead", "chords", "bass"), FULL, FULL),
)


@dataclass(frozen=True)
class Note:
    """A note of one part: onset and length in seconds, MIDI pitch, velocity in [0, 1]."""

    part: str
    onset: float
    length: float
    pitch: int
    velocity: float


@dataclass(frozen=True)
class Hit:
    """A drum hit: onset in seconds, which drum, velocity in [0, 1]."""

    onset: float
    drum: str
    velocity: float


@dataclass(frozen=True)
class Piece:
    """A composed piece. ``timbres`` maps each part to its timbre; ``kit`` is None for a piece without drums."""

    genre: str
    tempo: int
    key: int
    mode: str
    progression: tuple[int, ...]
    timbres: dict[str, str]
    kit: str | None
    wrong_note_rate: float
    unsteadiness: float  # standard deviation of the onsets, seconds
    brightness: float  # 0 dark … 1 bright, of the whole mix
    levels: dict[str, float]
    seconds: float
    notes: tuple[Note, ...]
    hits: tuple[Hit, ...]

    @property
    def lead(self) -> str:
        """Timbre of the melody."""
        return self.timbres["lead"]

    def audible(self, start: float, seconds: float) -> frozenset[str]:
        """Returns the parts, "drums" included, with at least two onsets in the window."""
        onsets = [n.part for n in self.notes if start <= n.onset < start + seconds]
        onsets += ["drums" for h in self.hits if start <= h.onset < start + seconds]
        return frozenset(part for part in (*PARTS, "drums") if onsets.count(part) >= 2)


def compose(rng: np.random.Generator, carelessness: float = 0.2) -> Piece:
    """Composes a piece of at least 16 s.

    Args:
        rng: The only source of randomness: equal generators give equal pieces.
        carelessness: Probability of wrong notes and, independently, of unsteady onsets.
    """
    name = _pick(rng, tuple(GENRES))
    genre = GENRES[name]
    score = _Score(genre, rng)
    wrong_note_rate = float(rng.uniform(0.12, 0.4)) if rng.random() < carelessness else 0.0
    unsteadiness = float(rng.uniform(0.025, 0.07)) if rng.random() < carelessness else 0.0
    notes, hits = score.write()
    return Piece(
        genre=name,
        tempo=score.tempo,
        key=score.key,
        mode=score.mode,
        progression=score.progression,
        timbres={"lead": score.lead, "chords": _other(rng, genre.chords, score.lead), "bass": _pick(rng, genre.basses)},
        kit=genre.kit if hits else None,
        wrong_note_rate=wrong_note_rate,
        unsteadiness=unsteadiness,
        brightness=float(rng.uniform(0.0, 1.0)),
        levels={"lead": float(rng.uniform(0.9, 1.2)), "chords": float(rng.uniform(0.35, 0.6)),
                "bass": float(rng.uniform(0.6, 0.9)), "drums": float(rng.uniform(1.6, 2.6))},
        seconds=score.bars * score.bar_seconds,
        notes=_perform(notes, wrong_note_rate, unsteadiness, rng),
        hits=tuple(Hit(_jittered(h.onset, unsteadiness, rng), h.drum, h.velocity) for h in hits),
    )  # fmt: skip


def onset(genre: Genre, tempo: int, bar: int, step: float) -> float:
    """Returns the time in seconds of sixteenth ``step`` of a bar, at ``tempo`` beats per minute."""
    step_seconds = 60.0 / tempo / 4
    # Swing delays the second eighth of every beat.
    swung = step + genre.swing if step % 4 == 2 else step
    return bar * (genre.steps_per_bar * step_seconds) + swung * step_seconds


def bar_hits(genre: Genre, tempo: int, bar: int, drums: Mapping[str, str]) -> list[Hit]:
    """Returns the hits of one bar in the genre's timing; a drum's pattern has one mark per sixteenth."""
    return [
        Hit(onset(genre, tempo, bar, step), drum, STRONG if mark == "x" else SOFT)
        for drum, pattern in drums.items()
        for step, mark in enumerate(pattern)
        if mark != "."
    ]


def _pick(rng: np.random.Generator, options: tuple):
    return options[int(rng.integers(len(options)))]


def _other(rng: np.random.Generator, options: tuple[str, ...], excluded: str) -> str:
    return _pick(rng, tuple(option for option in options if option != excluded) or options)


def _jittered(onset: float, unsteadiness: float, rng: np.random.Generator) -> float:
    return max(0.0, onset + float(rng.normal(0.0, unsteadiness))) if unsteadiness else onset


def _perform(
    notes: list[Note], wrong_note_rate: float, unsteadiness: float, rng: np.random.Generator
) -> tuple[Note, ...]:
    """Plays the written notes with the players' errors: semitone slips and unsteady onsets."""
    if not (wrong_note_rate or unsteadiness):
        return tuple(notes)
    played = []
    for n in notes:
        slip = int(rng.choice((-1, 1))) if rng.random() < wrong_note_rate else 0
        played.append(Note(n.part, _jittered(n.onset, unsteadiness, rng), n.length, n.pitch + slip, n.velocity))
    return tuple(played)


class _Score:
    """Writes the notes of one piece; holds the values that its parts share."""

    def __init__(self, genre: Genre, rng: np.random.Generator) -> None:
        self.genre, self.rng = genre, rng
        self.tempo = int(rng.integers(genre.tempo[0], genre.tempo[1] + 1))
        self.key = int(rng.integers(12))
        self.mode = _pick(rng, genre.modes)
        self.progression = _pick(rng, genre.progressions)
        self.lead = _pick(rng, genre.leads)
        self.step_seconds = 60.0 / self.tempo / 4
        self.bar_seconds = genre.steps_per_bar * self.step_seconds
        self.bars = int(np.ceil(MINIMUM_SECONDS / self.bar_seconds))
        self.sections = _pick(rng, ARRANGEMENTS)
        self.has_drums = rng.random() < genre.drum_rate

    def write(self) -> tuple[list[Note], list[Hit]]:
        motifs = (self._motif(), self._motif())
        form = _pick(self.rng, ((0, 0, 1, 0), (0, 1, 0, 1), (0, 0, 0, 1)))
        notes: list[Note] = []
        hits: list[Hit] = []
        for bar in range(self.bars):
            playing = self.sections[bar * len(self.sections) // self.bars]
            root = self.progression[bar % len(self.progression)]
            if "lead" in playing:
                notes += self._melody(bar, root, motifs[form[bar % 4]])
            if "chords" in playing:
                notes += self._chords(bar, root)
            if "bass" in playing:
                notes += self._bass(bar, root)
            if "drums" in playing and self.has_drums:
                hits += bar_hits(self.genre, self.tempo, bar, self.genre.drums)
        return notes, hits

    def _pitch(self, degree: int, centre: int) -> int:
        """Returns the MIDI pitch of a scale degree; the tonic is the nearest one at or below ``centre``."""
        tonic = centre - (centre - self.key) % 12
        return tonic + SCALES[self.mode][degree % 7] + 12 * (degree // 7)

    def _note(self, part: str, bar: int, step: float, length: float, pitch: int, velocity: float = 0.8) -> Note:
        return Note(part, onset(self.genre, self.tempo, bar, step), length * self.step_seconds, pitch, velocity)

    def _motif(self) -> list[tuple[int, int, int | None]]:
        """Draws one bar of melody as (step, length, degree above the chord's root or None for a rest)."""
        lengths = _pick(self.rng, RHYTHMS[self.genre.steps_per_bar, self.genre.lead_rhythm])
        degree, step, motif = int(_pick(self.rng, (0, 2, 4, 7))), 0, []
        for length in lengths:
            motif.append((step, length, None if step and self.rng.random() < 0.12 else degree))
            degree = int(np.clip(degree + _pick(self.rng, (-2, -1, -1, 1, 1, 2, 3, -3)), -3, 9))
            step += length
        return motif

    def _melody(self, bar: int, root: int, motif: list[tuple[int, int, int | None]]) -> list[Note]:
        fold = root if root < 4 else root - 7  # keep the line in one register over high roots
        return [
            self._note(
                "lead",
                bar,
                step,
                length * 0.92,
                self._pitch(fold + degree, LEAD_CENTRE),
                0.9 if step % 8 == 0 else 0.75,
            )
            for step, length, degree in motif
            if degree is not None
        ]

    def _chords(self, bar: int, root: int) -> list[Note]:
        tones = (0, 2, 4, 6) if self.genre.sevenths else (0, 2, 4)
        pitches = [self._pitch(root + tone, CHORD_CENTRE) for tone in tones]
        pitches = [pitch - 12 if pitch > CHORD_CENTRE + 9 else pitch for pitch in pitches]
        stride = ARPEGGIO_STYLES.get(self.genre.chord_style)
        if stride:
            steps = range(0, self.genre.steps_per_bar, stride)
            return [
                self._note("chords", bar, s, stride * 1.5, pitches[i % len(pitches)] + 12) for i, s in enumerate(steps)
            ]
        struck = CHORD_STYLES[self.genre.chord_style]
        return [self._note("chords", bar, s, length * 0.95, pitch, 0.7) for s, length in struck for pitch in pitches]

    def _bass(self, bar: int, root: int) -> list[Note]:
        line = BASS_STYLES[self.genre.bass_style]
        return [
            self._note("bass", bar, step, length * 0.9, self._pitch(root + degree, BASS_CENTRE))
            for step, length, degree in line
            if step < self.genre.steps_per_bar
        ]
