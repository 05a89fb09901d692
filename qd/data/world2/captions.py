"""Captions: what a text asks of the music, and English text that says it.

A :class:`Request` names some attributes of a piece and leaves the others open. Half of the requests are open and name
one thing (a genre, a mood or a scene), a quarter name two or three, and a quarter name four to six.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qd.data.world2 import words
from qd.data.world2.composer import KEYS
from qd.data.world2.genres import GENRES
from qd.data.world2.piece import Piece

STRATA = ("open", "medium", "specific")
STRATUM_RATES = (0.5, 0.25, 0.25)
ATTRIBUTES = {"open": (1, 1), "medium": (2, 3), "specific": (4, 6)}
"""How many attributes a request of each stratum names: the least and the most."""

_WEIGHTS = {"genre": 3.0, "lead": 2.0, "mood": 1.3, "tempo": 1.3, "chords": 1.2, "drums": 1.0, "bass": 0.7,
            "scene": 0.5, "density": 0.5, "space": 0.5, "key": 0.3}  # fmt: skip
_OPEN_WEIGHTS = {"genre": 0.45, "mood": 0.2, "scene": 0.35}


@dataclass(frozen=True)
class Request:
    """What a text asks for. None leaves an attribute open.

    Attributes:
        genre: Name of a genre.
        mood: (bright or dark, slow or fast), a key of ``words.MOODS``.
        scene: Index of a scene of ``words.SCENES``.
        tempo: ``"slow"``, ``"medium"`` or ``"fast"``.
        lead: Timbre of the melody.
        chords: Timbre of the accompaniment.
        bass: Timbre of the bass.
        drums: Kind of the kit, or ``"none"``.
        density: ``"sparse"`` or ``"busy"``.
        space: ``"dry"`` or ``"wide"``.
        key: Number of the tonic, 0 for C, and bright or dark.
    """

    genre: str | None = None
    mood: tuple[str, str] | None = None
    scene: int | None = None
    tempo: str | None = None
    lead: str | None = None
    chords: str | None = None
    bass: str | None = None
    drums: str | None = None
    density: str | None = None
    space: str | None = None
    key: tuple[int, str] | None = None

    def fits(self, piece: Piece, audible: frozenset[str]) -> bool:
        """Returns whether a window of ``piece`` with these audible parts is what the text asks for."""
        has = attributes(piece, audible)
        return all(
            wanted is None or (wanted in has["scene"] if name == "scene" else has.get(name) == wanted)
            for name, wanted in vars(self).items()
        )

    @property
    def genres(self) -> tuple[str, ...]:
        """Genres that the request allows."""
        allowed = (self.genre,) if self.genre else tuple(GENRES)
        return allowed if self.scene is None else tuple(g for g in allowed if g in words.SCENES[self.scene].genres)


def attributes(piece: Piece, audible: frozenset[str]) -> dict:
    """Returns every attribute of a window that a text can name; an attribute that cannot be heard is missing."""
    pace = "slow" if piece.tempo < 100 else "fast"
    mood = (piece.light, pace)
    scenes = (i for i, s in enumerate(words.SCENES) if piece.genre in s.genres and mood in s.moods)
    has = {"genre": piece.genre, "mood": mood, "scene": tuple(scenes), "key": (piece.key, piece.light)}
    has["tempo"] = "slow" if piece.tempo < 86 else "medium" if piece.tempo < 116 else "fast"
    has["drums"] = piece.kit.kind if "drums" in audible and piece.kit else "none"
    has |= {part: piece.timbres[part] for part in ("lead", "chords", "bass") if part in audible}
    if "lead" in audible and piece.density != "medium":
        has["density"] = piece.density
    if piece.room.level < 0.12 or piece.room.level > 0.4:
        has["space"] = "dry" if piece.room.level < 0.12 else "wide"
    return has


def draw_request(piece: Piece, audible: frozenset[str], stratum: str, rng: np.random.Generator) -> Request:
    """Draws a request of a stratum that this window fits."""
    has = attributes(piece, audible)
    weights = _OPEN_WEIGHTS if stratum == "open" else _WEIGHTS
    names = [name for name in weights if has.get(name) not in (None, ())]
    least, most = ATTRIBUTES[stratum]
    count = min(int(rng.integers(least, most + 1)), len(names))
    chances = np.array([weights[name] for name in names])
    chosen = [names[i] for i in rng.choice(len(names), count, replace=False, p=chances / chances.sum())]
    request = Request(**{name: has[name] for name in chosen if name != "scene"})
    return replace(request, scene=_pick(rng, has["scene"])) if "scene" in chosen else request


def draw_stratum(rng: np.random.Generator, rates: tuple[float, ...] = STRATUM_RATES) -> str:
    """Draws one of ``STRATA`` at their rates."""
    return STRATA[int(rng.choice(len(STRATA), p=rates))]


def write(request: Request, rng: np.random.Generator) -> str:
    """Writes a request as one sentence or a list of tags; the generator draws the words and their order."""
    noun = _pick(rng, words.GENRE_NOUNS[request.genre]) if request.genre else _pick(rng, words.PLAIN_NOUNS)
    adjectives, details = _adjectives(request, rng), _details(request, rng)
    scene = None if request.scene is None else _pick(rng, words.SCENES[request.scene].texts)
    if not request.genre and not adjectives and not details and scene:
        return _sentence(_pick(rng, words.SCENE_OPENINGS).format(scene))
    if details and rng.random() < 0.2:  # a list of tags
        return ", ".join([noun, *adjectives, *details, *([scene] if scene else [])])
    ending = f" for {scene}" if scene else ""
    phrase = _noun_phrase(adjectives, noun)
    if not details:
        return _sentence(_pick(rng, words.OPENINGS).format(phrase=phrase, bare=" ".join([*adjectives, noun])) + ending)
    if rng.random() < 0.25:  # the parts first
        return _sentence(f"{_joined(details)} in {phrase}{ending}")
    return _sentence(f"{phrase}{ending} {_pick(rng, ('with', 'featuring', 'that has'))} {_joined(details)}")


def _adjectives(request: Request, rng: np.random.Generator) -> list[str]:
    found = [_pick(rng, words.TEMPI[request.tempo])] if request.tempo else []
    return found + ([_pick(rng, words.MOODS[request.mood])] if request.mood else [])


def _details(request: Request, rng: np.random.Generator) -> list[str]:
    parts = ((request.lead, words.LEADS), (request.chords, words.CHORDS), (request.bass, words.BASSES))
    details = [_pick(rng, templates).format(timbre, _article(timbre)) for timbre, templates in parts if timbre]
    if request.drums:
        details.append(_pick(rng, words.NO_DRUMS if request.drums == "none" else words.DRUMS[request.drums]))
    if request.density:
        details.append(_pick(rng, words.DENSITIES[request.density]))
    if request.space:
        details.append(_pick(rng, words.SPACES[request.space]))
    if request.key:
        name = KEYS[request.key[0]]
        details.append(f"{_article(name[0].lower())} {name} {'minor' if request.key[1] == 'dark' else 'major'} key")
    return [details[i] for i in rng.permutation(len(details))]


def _joined(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _noun_phrase(adjectives: list[str], noun: str) -> str:
    phrase = " ".join([*adjectives, noun])
    return phrase if noun.endswith(words.MASS_NOUNS) else f"{_article(phrase)} {phrase}"


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou8" else "a"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _pick(rng: np.random.Generator, options: tuple):
    return options[int(rng.integers(len(options)))]
