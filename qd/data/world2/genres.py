"""The genres of the world: the values that a piece of each genre can draw.

A genre is a table row, not code: the composer reads every field. Styles and rhythms are rows of
``qd.data.world2.patterns``, timbres of ``qd.data.world2.timbres``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Groove = dict[str, str]
"""Drum → one bar of hits: "x" strong, "o" soft, "." rest."""


@dataclass(frozen=True)
class Genre:
    """Values that pieces of one genre share; a piece draws one value from each tuple."""

    tempo: tuple[int, int]  # beats per minute, inclusive range
    modes: tuple[str, ...]
    progressions: tuple[tuple[int, ...], ...]  # scale degree of the chord of each bar
    leads: tuple[str, ...]
    chords: tuple[str, ...]  # timbres of the accompaniment
    basses: tuple[str, ...]
    densities: tuple[str, ...]
    chord_styles: tuple[str, ...]
    bass_styles: tuple[str, ...]
    kit: str | None
    drum_rate: float  # share of the pieces that have drums
    grooves: tuple[Groove, ...] = field(default_factory=tuple)
    steps_per_bar: int = 16
    swing: tuple[float, float] = (0.0, 0.0)  # range of the delay of the off-beats, in steps
    sevenths: float = 0.0  # share of the pieces whose chords have a seventh
    space: tuple[float, float] = (0.05, 0.35)  # range of the room's level
    echo: float = 0.2  # share of the pieces with an echo


GENRES: dict[str, Genre] = {
    "ambient": Genre(
        tempo=(54, 84), modes=("lydian", "major", "dorian", "minor"),
        progressions=((0, 3), (0, 4, 3, 4), (0, 1), (0, 0, 5, 5), (0, 2, 3, 3), (0, 5, 1, 4)),
        leads=("bell", "flute", "choir", "pad", "cello"),
        chords=("pad", "choir", "string section"), basses=("sine bass", "synth bass"),
        densities=("sparse", "sparse", "medium"),
        chord_styles=("sustained", "halves", "slow arpeggio", "rolling"), bass_styles=("pedal", "slow"),
        kit="hand", drum_rate=0.2,
        grooves=({"shaker": "o...o...o...o..."}, {"kick": "o.......o.......", "rim": "......o.......o."}),
        sevenths=0.6, space=(0.3, 0.8), echo=0.6,
    ),
    "techno": Genre(
        tempo=(120, 142), modes=("minor", "dorian", "phrygian"),
        progressions=((0, 0, 5, 6), (0, 0, 0, 0), (0, 0, 3, 3), (0, 1, 0, 6), (0, 5, 3, 4)),
        leads=("saw synth", "square synth", "wobble synth", "bell"),
        chords=("saw synth", "pad", "wobble synth"), basses=("synth bass", "acid bass"),
        densities=("sparse", "medium", "busy", "busy"),
        chord_styles=("stabs", "syncopated stabs", "sustained", "fast arpeggio", "double offbeat"),
        bass_styles=("pulse", "rolling", "octaves", "drive"),
        kit="electronic", drum_rate=0.95,
        grooves=(
            {"kick": "x...x...x...x...", "hat": "..x...x...x...x.", "clap": "....x.......x..."},
            {"kick": "x...x...x...x...", "open hat": "..x...x...x...x.", "hat": "oooooooooooooooo"},
            {"kick": "x..x..x...x..x..", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
            {"kick": "x...x...x...x.o.", "rim": "..o..o.o..o..o..", "shaker": "oooooooooooooooo"},
        ),
        space=(0.05, 0.5), echo=0.4,
    ),
    "waltz": Genre(
        tempo=(88, 140), modes=("major", "minor", "harmonic minor", "lydian"),
        progressions=((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 0, 4), (0, 1, 4, 0), (0, 3, 0, 4), (0, 5, 1, 4)),
        leads=("accordion", "violin", "piano", "clarinet", "harpsichord"),
        chords=("accordion", "piano", "string section"), basses=("upright bass", "cello"),
        densities=("sparse", "medium", "medium", "busy"),
        chord_styles=("waltz", "waltz held", "waltz light", "rolling", "arpeggio"),
        bass_styles=("waltz", "waltz walking"),
        kit="acoustic", drum_rate=0.4,
        grooves=(
            {"kick": "x...........", "rim": "....o...o..."},
            {"kick": "x...........", "brush": "....o...o..."},
            {"hat": "x...o.o.o...", "snare": "........o..."},
        ),
        steps_per_bar=12, space=(0.1, 0.6),
    ),
    "jazz": Genre(
        tempo=(96, 172), modes=("dorian", "mixolydian", "major", "minor"),
        progressions=((1, 4, 0, 5), (1, 4, 0, 0), (0, 5, 1, 4), (0, 3, 1, 4), (2, 5, 1, 4), (0, 0, 3, 4)),
        leads=("trumpet", "saxophone", "clarinet", "vibraphone", "piano"),
        chords=("piano", "electric piano"), basses=("upright bass",),
        densities=("sparse", "medium", "busy", "busy"),
        chord_styles=("comping", "late comping", "charleston", "halves", "quarters"),
        bass_styles=("walking", "walking down", "two"),
        kit="acoustic", drum_rate=0.85,
        grooves=(
            {"hat": "x...x.x.x...x.x.", "kick": "o.......o.......", "snare": "....o.......o..."},
            {"brush": "o.o.x.o.o.o.x.o.", "kick": "o..............."},
            {"open hat": "x...o.x.x...o.x.", "rim": "............o...", "kick": "o.......o......."},
            {"hat": "....x.......x...", "tom": "..........o...o.", "kick": "x.......o......."},
        ),
        swing=(0.3, 0.75), sevenths=0.9, space=(0.05, 0.4),
    ),
    "folk": Genre(
        tempo=(78, 128), modes=("major", "mixolydian", "dorian", "minor"),
        progressions=((0, 3, 4, 0), (0, 4, 5, 3), (0, 3, 0, 4), (0, 6, 3, 0), (0, 5, 3, 4), (0, 0, 4, 4)),
        leads=("violin", "flute", "guitar", "harmonica", "banjo"),
        chords=("guitar", "banjo", "harp"), basses=("upright bass", "cello"),
        densities=("sparse", "medium", "medium", "busy"),
        chord_styles=("strum", "quarters", "alberti", "rolling", "halves", "island strum"),
        bass_styles=("root", "two", "pedal"),
        kit="hand", drum_rate=0.4,
        grooves=(
            {"shaker": "o.o.o.o.o.o.o.o.", "kick": "x.......x......."},
            {"tom": "x...o...x...o...", "brush": "....x.......x..."},
            {"conga": "x..o..x.x..o..x.", "shaker": "..o...o...o...o."},
        ),
        space=(0.05, 0.4),
    ),
    "rock": Genre(
        tempo=(104, 164), modes=("minor", "mixolydian", "major", "dorian"),
        progressions=((0, 5, 2, 6), (0, 3, 4, 3), (0, 6, 5, 6), (0, 4, 5, 3), (0, 0, 3, 4), (5, 3, 0, 4)),
        leads=("distorted guitar", "organ", "clean electric guitar"),
        chords=("distorted guitar", "organ"), basses=("bass guitar",),
        densities=("sparse", "medium", "medium", "busy"),
        chord_styles=("drive", "gallop", "quarters", "sustained", "strum", "syncopated stabs"),
        bass_styles=("drive", "root", "riff", "octaves"),
        kit="acoustic", drum_rate=0.95,
        grooves=(
            {"kick": "x.....x.x.......", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
            {"kick": "x...x...x...x...", "snare": "....x.......x...", "open hat": "x...x...x...x..."},
            {"kick": "x..x....x.x.....", "snare": "....x.......x..o", "hat": "xoxoxoxoxoxoxoxo"},
            {"tom": "x.x.o.x.x.x.o.x.", "kick": "x.......x.......", "snare": "............x..."},
            {"kick": "x.......x.x.....", "snare": "........x.......", "hat": "x...x...x...x..."},
        ),
        space=(0.05, 0.35),
    ),
    "funk": Genre(
        tempo=(90, 118), modes=("dorian", "mixolydian", "minor"),
        progressions=((0, 0, 3, 0), (0, 0, 0, 4), (0, 3), (0, 6, 3, 0), (0, 0, 1, 4)),
        leads=("brass section", "electric piano", "saxophone", "clean electric guitar"),
        chords=("electric piano", "clean electric guitar", "organ"), basses=("bass guitar", "synth bass"),
        densities=("sparse", "medium", "busy", "busy"),
        chord_styles=("offbeat sixteenths", "scratch", "syncopated stabs", "charleston"),
        bass_styles=("syncopated", "slap", "riff", "octaves"),
        kit="acoustic", drum_rate=0.95,
        grooves=(
            {"kick": "x..x..x...x..x..", "snare": "....x..o.o..x..o", "hat": "xoxoxoxoxoxoxoxo"},
            {"kick": "x.....x...x.....", "snare": "....x.......x.o.", "open hat": "..x...x...x...x."},
            {"kick": "x.x.......x..x..", "clap": "....x.......x...", "conga": "..o.o.oo..o.o.oo"},
            {"kick": "x...x...x...x...", "open hat": "..x...x...x...x.", "snare": "....x.......x..."},
        ),
        sevenths=0.8, space=(0.03, 0.25),
    ),
    "reggae": Genre(
        tempo=(64, 94), modes=("minor", "major", "dorian", "mixolydian"),
        progressions=((0, 3), (0, 3, 4, 3), (0, 6, 5, 4), (0, 1), (0, 4, 5, 3), (0, 0, 3, 3)),
        leads=("organ", "trombone", "steel drum", "harmonica"),
        chords=("organ", "clean electric guitar", "piano"), basses=("bass guitar", "sine bass"),
        densities=("sparse", "medium", "medium"),
        chord_styles=("offbeat", "double offbeat", "island strum"), bass_styles=("syncopated", "dub", "root"),
        kit="acoustic", drum_rate=0.95,
        grooves=(
            {"kick": "........x.......", "rim": "........x.......", "hat": "x.o.x.o.x.o.x.o."},
            {"kick": "x...x...x...x...", "snare": "........x.......", "hat": "..x...x...x...x."},
            {"kick": "x.......x.......", "rim": "....x..x....x...", "shaker": "o.o.o.o.o.o.o.o."},
            {"conga": "x.oo..x.x.oo..x.", "kick": "........x......."},
        ),
        space=(0.15, 0.6), echo=0.6,
    ),
    "chiptune": Genre(
        tempo=(120, 180), modes=("major", "minor", "mixolydian", "harmonic minor"),
        progressions=((0, 5, 3, 4), (0, 4, 5, 3), (0, 3, 4, 4), (0, 6, 5, 4), (0, 2, 3, 4), (0, 0, 5, 4)),
        leads=("square synth", "triangle synth"),
        chords=("square synth", "triangle synth"), basses=("triangle synth", "square synth"),
        densities=("medium", "busy", "busy"),
        chord_styles=("fast arpeggio", "arpeggio", "falling arpeggio", "alberti", "stabs"),
        bass_styles=("octaves", "root", "drive", "walking"),
        kit="chip", drum_rate=0.8,
        grooves=(
            {"kick": "x.......x.......", "snare": "....x.......x...", "hat": "o.o.o.o.o.o.o.o."},
            {"kick": "x...x...x...x...", "hat": "..x...x...x...x."},
            {"kick": "x.x.....x.x.....", "snare": "....x..o....x.oo"},
            {"tom": "x..x..x.x..x..x.", "snare": "....x.......x..."},
        ),
        space=(0.0, 0.1), echo=0.15,
    ),
    "lullaby": Genre(
        tempo=(54, 84), modes=("major", "lydian", "mixolydian"),
        progressions=((0, 3, 4, 0), (0, 5, 3, 4), (0, 4), (0, 1, 4, 0), (0, 3), (0, 2, 3, 0)),
        leads=("music box", "harp", "flute", "vibraphone", "oboe"),
        chords=("harp", "music box", "pad"), basses=("sine bass",),
        densities=("sparse", "medium", "medium"),
        chord_styles=("slow arpeggio", "rolling", "halves", "sustained", "arpeggio"),
        bass_styles=("pedal", "slow", "two"),
        kit=None, drum_rate=0.0,
        sevenths=0.2, space=(0.15, 0.6), echo=0.25,
    ),
    "march": Genre(
        tempo=(98, 130), modes=("major", "mixolydian", "minor"),
        progressions=((0, 4, 0, 4), (0, 3, 4, 0), (0, 0, 4, 4), (0, 5, 4, 0), (0, 3, 0, 4)),
        leads=("trumpet", "clarinet", "flute", "trombone", "brass section"),
        chords=("brass section", "trombone"), basses=("tuba",),
        densities=("sparse", "medium", "medium", "busy"),
        chord_styles=("offbeat", "quarters", "double offbeat", "halves"), bass_styles=("root", "two", "walking"),
        kit="acoustic", drum_rate=0.95,
        grooves=(
            {"kick": "x.......x.......", "snare": "x..ox.o.x..oxoxo"},
            {"kick": "x...x...x...x...", "snare": "x.oox.oox.ooxxxx"},
            {"kick": "x.......x.......", "snare": "....x.......x...", "open hat": "x.......x......."},
            {"tom": "x..x..x.x..x..x.", "snare": "o.o.o.o.o.o.oooo"},
        ),
        space=(0.1, 0.6),
    ),
    "bossa nova": Genre(
        tempo=(104, 148), modes=("major", "dorian", "minor", "lydian"),
        progressions=((0, 1, 4, 0), (0, 5, 1, 4), (0, 0, 1, 4), (0, 3, 1, 4), (0, 1), (2, 5, 1, 4)),
        leads=("flute", "guitar", "vibraphone", "marimba", "oboe"),
        chords=("guitar", "electric piano"), basses=("upright bass", "sine bass"),
        densities=("sparse", "medium", "medium", "busy"),
        chord_styles=("bossa", "bossa late", "rolling", "charleston"), bass_styles=("bossa", "two", "root"),
        kit="hand", drum_rate=0.75,
        grooves=(
            {"rim": "x..x..x...x..x..", "shaker": "oooooooooooooooo", "kick": "x..ox..ox..ox..o"},
            {"rim": "..x.x...x..x..x.", "brush": "o.o.o.o.o.o.o.o.", "kick": "x......ox......o"},
            {"conga": "o.x.o.xxo.x.o.xx", "shaker": "o.o.o.o.o.o.o.o."},
        ),
        sevenths=0.9, space=(0.05, 0.4),
    ),
}  # fmt: skip
