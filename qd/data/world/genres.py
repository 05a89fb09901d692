"""The genres of the built-in world: the values that a piece of each genre can draw.

A genre is a table row, not code: the composer reads every field. Styles and rhythms are rows of
``qd.data.world.styles``.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Genre:
    """Values that pieces of one genre share; a piece draws one value from each tuple."""

    tempo: tuple[int, int]  # beats per minute, inclusive range
    modes: tuple[str, ...]
    progressions: tuple[tuple[int, ...], ...]  # scale degree of the chord of each bar
    leads: tuple[str, ...]
    chords: tuple[str, ...]  # timbres of the accompaniment
    basses: tuple[str, ...]
    lead_rhythm: str
    chord_style: str
    bass_style: str
    kit: str | None
    drum_rate: float  # share of the pieces that have drums
    drums: dict[str, str] = field(default_factory=dict)  # drum → one bar of hits: "x" strong, "o" soft, "." rest
    steps_per_bar: int = 16
    swing: float = 0.0  # delay of the off-beats, in steps
    sevenths: bool = False
    echo: float = 0.15  # level of the echo


GENRES: dict[str, Genre] = {
    "ambient": Genre(
        tempo=(60, 80), modes=("lydian", "major"),
        progressions=((0, 3), (0, 4, 3, 4), (0, 1)),
        leads=("bell", "flute", "choir", "vibraphone"),
        chords=("pad", "choir", "organ"), basses=("sine bass",),
        lead_rhythm="sparse", chord_style="sustained", bass_style="pedal",
        kit=None, drum_rate=0.0,
        sevenths=True, echo=0.45,
    ),
    "techno": Genre(
        tempo=(122, 138), modes=("minor", "dorian"),
        progressions=((0, 0, 5, 6), (0, 0, 0, 0), (0, 0, 3, 3)),
        leads=("saw synth", "square synth", "bell"),
        chords=("saw synth", "pad"), basses=("synth bass",),
        lead_rhythm="busy", chord_style="stabs", bass_style="pulse",
        kit="electronic", drum_rate=1.0,
        drums={"kick": "x...x...x...x...",
               "hat": "..x...x...x...x.",
               "clap": "....x.......x..."},
        echo=0.25,
    ),
    "waltz": Genre(
        tempo=(96, 132), modes=("major", "minor"),
        progressions=((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 0, 4)),
        leads=("accordion", "violin", "piano", "clarinet"),
        chords=("accordion", "piano", "harp"), basses=("upright bass", "tuba"),
        lead_rhythm="medium", chord_style="waltz", bass_style="root",
        kit="acoustic", drum_rate=0.4,
        drums={"kick": "x...........",
               "rim": "....o...o..."},
        steps_per_bar=12,
    ),
    "jazz": Genre(
        tempo=(104, 160), modes=("dorian", "mixolydian", "major"),
        progressions=((1, 4, 0, 5), (1, 4, 0, 0), (0, 5, 1, 4)),
        leads=("trumpet", "clarinet", "vibraphone", "electric piano"),
        chords=("piano", "electric piano"), basses=("upright bass",),
        lead_rhythm="busy", chord_style="comping", bass_style="walking",
        kit="acoustic", drum_rate=0.85,
        drums={"hat": "x...x.x.x...x.x.",
               "kick": "o.......o.......",
               "snare": "....o.......o..."},
        swing=0.66, sevenths=True,
    ),
    "folk": Genre(
        tempo=(84, 120), modes=("major", "mixolydian"),
        progressions=((0, 3, 4, 0), (0, 4, 5, 3), (0, 3, 0, 4)),
        leads=("violin", "flute", "guitar", "accordion"),
        chords=("guitar", "harp"), basses=("upright bass",),
        lead_rhythm="medium", chord_style="strum", bass_style="root",
        kit="acoustic", drum_rate=0.35,
        drums={"shaker": "o.o.o.o.o.o.o.o.",
               "kick": "x.......x......."},
    ),
    "rock": Genre(
        tempo=(112, 152), modes=("minor", "mixolydian"),
        progressions=((0, 5, 2, 6), (0, 3, 4, 3), (0, 6, 5, 6)),
        leads=("distorted guitar", "organ", "saw synth"),
        chords=("distorted guitar", "organ"), basses=("bass guitar",),
        lead_rhythm="medium", chord_style="drive", bass_style="drive",
        kit="acoustic", drum_rate=1.0,
        drums={"kick": "x.....x.x.......",
               "snare": "....x.......x...",
               "hat": "x.x.x.x.x.x.x.x."},
    ),
    "funk": Genre(
        tempo=(94, 114), modes=("dorian", "mixolydian"),
        progressions=((0, 0, 3, 0), (0, 0, 0, 4), (0, 3)),
        leads=("trumpet", "electric piano", "organ", "square synth"),
        chords=("electric piano", "guitar"), basses=("bass guitar", "synth bass"),
        lead_rhythm="busy", chord_style="offbeat sixteenths", bass_style="syncopated",
        kit="acoustic", drum_rate=1.0,
        drums={"kick": "x..x..x...x..x..",
               "snare": "....x..o.o..x..o",
               "hat": "xoxoxoxoxoxoxoxo"},
        sevenths=True,
    ),
    "reggae": Genre(
        tempo=(68, 88), modes=("minor", "major"),
        progressions=((0, 3), (0, 3, 4, 3), (0, 6, 5, 4)),
        leads=("organ", "trumpet", "electric piano"),
        chords=("organ", "guitar"), basses=("bass guitar", "sine bass"),
        lead_rhythm="medium", chord_style="offbeat", bass_style="syncopated",
        kit="acoustic", drum_rate=1.0,
        drums={"kick": "........x.......",
               "rim": "........x.......",
               "hat": "x.o.x.o.x.o.x.o."},
        echo=0.4,
    ),
    "chiptune": Genre(
        tempo=(132, 172), modes=("major", "minor"),
        progressions=((0, 5, 3, 4), (0, 4, 5, 3), (0, 3, 4, 4)),
        leads=("square synth", "triangle synth"),
        chords=("square synth", "triangle synth"), basses=("triangle synth",),
        lead_rhythm="busy", chord_style="arpeggio", bass_style="octaves",
        kit="chip", drum_rate=0.8,
        drums={"kick": "x.......x.......",
               "snare": "....x.......x...",
               "hat": "o.o.o.o.o.o.o.o."},
        echo=0.0,
    ),
    "lullaby": Genre(
        tempo=(60, 82), modes=("major",),
        progressions=((0, 3, 4, 0), (0, 5, 3, 4), (0, 4)),
        leads=("music box", "harp", "flute", "choir"),
        chords=("harp", "music box", "pad"), basses=("sine bass",),
        lead_rhythm="medium", chord_style="slow arpeggio", bass_style="pedal",
        kit=None, drum_rate=0.0,
        echo=0.3,
    ),
    "march": Genre(
        tempo=(104, 124), modes=("major",),
        progressions=((0, 4, 0, 4), (0, 3, 4, 0), (0, 0, 4, 4)),
        leads=("trumpet", "clarinet", "flute"),
        chords=("brass section", "clarinet"), basses=("tuba",),
        lead_rhythm="medium", chord_style="march", bass_style="march",
        kit="acoustic", drum_rate=1.0,
        drums={"kick": "x.......x.......",
               "snare": "x..ox.o.x..oxoxo"},
        echo=0.2,
    ),
    "bossa nova": Genre(
        tempo=(116, 140), modes=("major", "dorian"),
        progressions=((0, 1, 4, 0), (0, 5, 1, 4), (0, 0, 1, 4)),
        leads=("flute", "guitar", "vibraphone", "clarinet"),
        chords=("guitar", "electric piano"), basses=("upright bass", "sine bass"),
        lead_rhythm="medium", chord_style="bossa", bass_style="bossa",
        kit="acoustic", drum_rate=0.75,
        drums={"rim": "x..x..x...x..x..",
               "shaker": "oooooooooooooooo",
               "kick": "x..ox..ox..ox..o"},
        sevenths=True,
    ),
}  # fmt: skip
