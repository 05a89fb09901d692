"""A composed piece: its notes and drum hits, and everything that decides how they sound."""

from __future__ import annotations

from dataclasses import dataclass

from qd.data.world2.kits import Kit
from qd.data.world2.patterns import DARK_MODES
from qd.data.world2.voices import Tone

PARTS = ("lead", "chords", "bass")


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
class Room:
    """Space around the players.

    Attributes:
        number: Which of the synthesiser's rooms.
        level: Level of the room against the direct sound.
        echo_seconds: Delay of the echo.
        echo: Level of the echo; 0 for none.
        tilt: Spectral tilt of the whole mix, in dB an octave; 0 is neutral.
    """

    number: int
    level: float
    echo_seconds: float
    echo: float
    tilt: float


@dataclass(frozen=True)
class Piece:
    """A composed piece.

    Attributes:
        timbres: Timbre of each part.
        tones: Tone of each part.
        kit: Sound of the drums; None for a piece without drums.
        density: How many notes the melody has: "sparse", "medium" or "busy".
        wrong_note_rate: Share of the notes that slip by a semitone.
        unsteadiness: Standard deviation of the onsets, in seconds.
        levels: Level of each part and of the drums.
        seconds: Length of the piece.
    """

    genre: str
    tempo: int
    key: int
    mode: str
    density: str
    timbres: dict[str, str]
    tones: dict[str, Tone]
    kit: Kit | None
    room: Room
    wrong_note_rate: float
    unsteadiness: float
    levels: dict[str, float]
    seconds: float
    notes: tuple[Note, ...]
    hits: tuple[Hit, ...]
    swing: float

    @property
    def lead(self) -> str:
        """Timbre of the melody."""
        return self.timbres["lead"]

    @property
    def light(self) -> str:
        """``"dark"`` for the minor modes, else ``"bright"``."""
        return "dark" if self.mode in DARK_MODES else "bright"

    def audible(self, start: float, seconds: float) -> frozenset[str]:
        """Returns the parts, "drums" included, with at least two onsets in the window."""
        onsets = [n.part for n in self.notes if start <= n.onset < start + seconds]
        onsets += ["drums" for h in self.hits if start <= h.onset < start + seconds]
        return frozenset(part for part in (*PARTS, "drums") if onsets.count(part) >= 2)
