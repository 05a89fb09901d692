"""Composes a piece of music, as notes and drum hits in seconds, from a random generator.

A piece draws a genre, then tempo, key, mode, chords, timbres, tones, styles, a groove and an arrangement from the
genre's row. Its melody develops its motifs over the chords. The simulated players can be careless: at rates drawn for
each piece they play wrong neighbouring notes and unsteady onsets.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qd.data.world2.genres import GENRES, Genre, Groove
from qd.data.world2.kits import Kit
from qd.data.world2.melody import phrase
from qd.data.world2.patterns import ARPEGGIO_STYLES, BASS_STYLES, CHORD_STYLES, SCALES
from qd.data.world2.piece import PARTS, Hit, Note, Piece, Room
from qd.data.world2.voices import Tone

MINIMUM_SECONDS = 16.0
CENTRES = {"lead": 70, "chords": 58, "bass": 38}
"""MIDI pitches around which the parts play, before the piece's own register."""

STRONG, SOFT = 1.0, 0.45  # velocities of the marks "x" and "o" of a drum pattern
KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
HARMONIES = (None, None, None, None, "third", "octave")  # a second melody that follows the first

# Which parts play in the sections of a piece. The lead rests in at most one section out of four.
FULL = ("lead", "chords", "bass", "drums")
ARRANGEMENTS = (
    (("chords", "lead"), FULL, FULL, ("lead", "bass", "drums")),
    (FULL, ("chords", "bass", "drums"), FULL, ("lead", "chords")),
    (("lead", "bass", "drums"), FULL, ("lead", "chords"), FULL),
    (FULL, FULL, FULL, FULL),
    (("lead", "chords", "bass"), FULL, FULL, FULL),
    (("lead", "chords", "drums"), FULL, ("lead", "bass", "drums"), FULL),
    (FULL, ("lead", "chords", "drums"), FULL, ("lead", "chords", "bass")),
)
LEVELS = {"lead": (1.0, 1.4), "chords": (0.35, 0.6), "bass": (0.55, 0.85), "drums": (1.6, 2.6)}


def compose(rng: np.random.Generator, carelessness: float = 0.2, genres: tuple[str, ...] = tuple(GENRES)) -> Piece:
    """Composes a piece of at least 16 s.

    Args:
        rng: The only source of randomness: equal generators give equal pieces.
        carelessness: Probability of wrong notes and, independently, of unsteady onsets.
        genres: Genres to draw from.
    """
    name = _pick(rng, genres)
    genre = GENRES[name]
    score = _Score(genre, rng)
    notes, hits = score.write()
    wrong_note_rate = float(rng.uniform(0.15, 0.45)) if rng.random() < carelessness else 0.0
    unsteadiness = float(rng.uniform(0.03, 0.08)) if rng.random() < carelessness else 0.0
    lead = _pick(rng, genre.leads)
    return Piece(
        genre=name,
        tempo=score.tempo,
        key=score.key,
        mode=score.mode,
        density=score.density,
        timbres={"lead": lead, "chords": _other(rng, genre.chords, lead), "bass": _pick(rng, genre.basses)},
        tones={part: _tone(rng) for part in PARTS},
        kit=_kit(genre.kit, rng) if hits else None,
        room=_room(genre, score.tempo, rng),
        wrong_note_rate=wrong_note_rate,
        unsteadiness=unsteadiness,
        levels={part: float(rng.uniform(*limits)) for part, limits in LEVELS.items()},
        seconds=score.bars * score.bar_seconds,
        notes=_perform(notes, wrong_note_rate, unsteadiness, rng),
        hits=tuple(Hit(_jittered(h.onset, unsteadiness, rng), h.drum, h.velocity) for h in hits),
        swing=score.swing,
    )


def onset(steps_per_bar: int, tempo: int, swing: float, bar: int, step: float) -> float:
    """Returns the time in seconds of sixteenth ``step`` of a bar, at ``tempo`` beats per minute.

    Swing delays the second eighth of every beat by ``swing`` steps.
    """
    step_seconds = 60.0 / tempo / 4
    return (bar * steps_per_bar + step + (swing if step % 4 == 2 else 0.0)) * step_seconds


def bar_hits(genre: Genre, tempo: int, swing: float, bar: int, groove: Mapping[str, str]) -> list[Hit]:
    """Returns the hits of one bar; a drum's pattern has one mark per sixteenth."""
    return [
        Hit(onset(genre.steps_per_bar, tempo, swing, bar, step), drum, STRONG if mark == "x" else SOFT)
        for drum, pattern in groove.items()
        for step, mark in enumerate(pattern)
        if mark != "."
    ]


def draw_kit(kind: str, rng: np.random.Generator) -> Kit:
    """Draws the sound of a kit of one of ``qd.data.world2.kits.KITS``."""
    return Kit(kind, float(2.0 ** rng.uniform(-0.3, 0.3)), float(2.0 ** rng.uniform(-0.6, 0.6)),
               float(rng.uniform(-0.4, 0.4)), int(rng.integers(48)))  # fmt: skip


def _kit(kind: str | None, rng: np.random.Generator) -> Kit | None:
    return draw_kit(kind, rng) if kind else None


def _tone(rng: np.random.Generator) -> Tone:
    return Tone(
        brightness=float(rng.uniform(-1.0, 1.0)),
        attack=float(2.0 ** rng.uniform(-0.8, 1.2)),
        detune=float(rng.uniform(4.0, 16.0)) if rng.random() < 0.35 else 0.0,
        vibrato=float(rng.uniform(0.0, 2.0)),
        vibrato_rate=float(rng.uniform(4.2, 6.8)),
        breath=float(rng.uniform(0.2, 1.8)),
        motion_rate=float(2.0 ** rng.uniform(-1.5, 1.5)),
        tremolo=float(rng.uniform(0.1, 0.6)) if rng.random() < 0.15 else 0.0,
    )


def _room(genre: Genre, tempo: int, rng: np.random.Generator) -> Room:
    beat = 60.0 / tempo
    return Room(
        number=int(rng.integers(16)),
        level=float(rng.uniform(*genre.space)),
        echo_seconds=beat * float(_pick(rng, (0.5, 0.75, 1.0))),
        echo=float(rng.uniform(0.2, 0.5)) if rng.random() < genre.echo else 0.0,
        tilt=float(rng.uniform(-0.8, 0.8)),
    )


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
        self.swing = float(rng.uniform(*genre.swing))
        self.key = int(rng.integers(12))
        self.mode = _pick(rng, genre.modes)
        self.progression = _pick(rng, genre.progressions)
        self.density = _pick(rng, genre.densities)
        self.chord_style, self.bass_style = _pick(rng, genre.chord_styles), _pick(rng, genre.bass_styles)
        self.tones = (0, 2, 4, 6) if rng.random() < genre.sevenths else (0, 2, 4)
        self.register = {part: int(rng.integers(-4, 6)) for part in PARTS}
        self.harmony = _pick(rng, HARMONIES)
        self.legato = float(rng.uniform(0.55, 1.0))
        self.step_seconds = 60.0 / self.tempo / 4
        self.bar_seconds = genre.steps_per_bar * self.step_seconds
        self.bars = int(np.ceil(MINIMUM_SECONDS / self.bar_seconds))
        self.sections = _pick(rng, ARRANGEMENTS)
        self.groove = _pick(rng, genre.grooves) if genre.grooves and rng.random() < genre.drum_rate else None

    def write(self) -> tuple[list[Note], list[Hit]]:
        melody = phrase(self.density, self.genre.steps_per_bar, self.rng)
        grooves = (self.groove, _thinned(self.groove, self.rng)) if self.groove else ()
        notes: list[Note] = []
        hits: list[Hit] = []
        for bar in range(self.bars):
            playing = self.sections[bar * len(self.sections) // self.bars]
            root = self.progression[bar % len(self.progression)]
            if "lead" in playing:
                notes += self._melody(bar, root, melody[bar % 4])
            if "chords" in playing:
                notes += self._chords(bar, root)
            if "bass" in playing:
                notes += self._bass(bar, root)
            if "drums" in playing and grooves:
                hits += bar_hits(self.genre, self.tempo, self.swing, bar, grooves[bar % 4 == 3])
        return notes, hits

    def _pitch(self, degree: int, part: str) -> int:
        """Returns the MIDI pitch of a scale degree; the tonic is the nearest one at or below the part's centre."""
        centre = CENTRES[part] + self.register[part]
        tonic = centre - (centre - self.key) % 12
        return tonic + SCALES[self.mode][degree % 7] + 12 * (degree // 7)

    def _note(self, part: str, bar: int, step: float, length: float, pitch: int, velocity: float = 0.8) -> Note:
        start = onset(self.genre.steps_per_bar, self.tempo, self.swing, bar, step)
        return Note(part, start, length * self.step_seconds, pitch, velocity)

    def _melody(self, bar: int, root: int, motif: list) -> list[Note]:
        fold = root if root < 4 else root - 7  # keep the line in one register over high roots
        shift = {"third": 2, "octave": -7}.get(self.harmony)
        notes = []
        for step, length, degree in motif:
            velocity = 0.9 if step % 8 == 0 else 0.75
            voices = [(degree, velocity), (degree + shift, 0.6 * velocity)] if shift else [(degree, velocity)]
            for sung, loudness in voices:
                pitch = self._pitch(fold + sung, "lead")
                notes.append(self._note("lead", bar, step, length * self.legato, pitch, loudness))
        return notes

    def _chords(self, bar: int, root: int) -> list[Note]:
        pitches = [self._pitch(root + tone, "chords") for tone in self.tones]
        ceiling = CENTRES["chords"] + self.register["chords"] + 9
        pitches = [pitch - 12 if pitch > ceiling else pitch for pitch in pitches]
        if self.chord_style in ARPEGGIO_STYLES:
            stride, order = ARPEGGIO_STYLES[self.chord_style]
            steps = range(0, self.genre.steps_per_bar, stride)
            return [
                self._note("chords", bar, s, stride * 1.5, pitches[order[i % len(order)] % len(pitches)] + 12)
                for i, s in enumerate(steps)
            ]
        struck = [(s, length) for s, length in CHORD_STYLES[self.chord_style] if s < self.genre.steps_per_bar]
        return [self._note("chords", bar, s, length * 0.95, pitch, 0.7) for s, length in struck for pitch in pitches]

    def _bass(self, bar: int, root: int) -> list[Note]:
        line = BASS_STYLES[self.bass_style]
        return [
            self._note("bass", bar, step, length * 0.9, self._pitch(root + degree, "bass"))
            for step, length, degree in line
            if step < self.genre.steps_per_bar
        ]


def _thinned(groove: Groove, rng: np.random.Generator) -> Groove:
    """Returns the groove of every fourth bar: some hits are left out, and soft ones are added to one drum."""
    changed = {
        drum: "".join("." if rng.random() < 0.15 else mark for mark in pattern) for drum, pattern in groove.items()
    }
    drum = _pick(rng, tuple(groove))
    changed[drum] = "".join("o" if mark == "." and rng.random() < 0.25 else mark for mark in changed[drum])
    return changed
