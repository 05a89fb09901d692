"""Writes captions: English text that names some of what a clip contains, so that many clips fit one caption."""

from __future__ import annotations

import numpy as np

from qd.data.world.composer import KEYS, Piece
from qd.data.world.degradation import CLEAN

GENRE_NOUNS = {
    "ambient": ("ambient piece", "ambient soundscape", "ambient music", "atmospheric ambient track"),
    "techno": ("techno track", "club techno", "techno beat", "electronic dance track"),
    "waltz": ("waltz", "dance in three", "ballroom waltz", "waltz tune"),
    "jazz": ("jazz tune", "swing jazz", "jazz piece", "jazz combo recording"),
    "folk": ("folk song", "folk tune", "country folk piece", "traditional folk music"),
    "rock": ("rock song", "rock track", "guitar rock", "rock band recording"),
    "funk": ("funk groove", "funk track", "funky jam", "funk music"),
    "reggae": ("reggae tune", "reggae track", "roots reggae", "reggae groove"),
    "chiptune": ("chiptune", "video game music", "8-bit tune", "retro game track"),
    "lullaby": ("lullaby", "cradle song", "gentle lullaby", "bedtime song"),
    "march": ("march", "brass band march", "parade march", "military march"),
    "bossa nova": ("bossa nova", "bossa nova tune", "Brazilian bossa nova", "bossa nova song"),
}
PLAIN_NOUNS = ("piece", "tune", "music", "track", "instrumental")
MOODS = {
    ("bright", "slow"): ("peaceful", "warm", "tender", "calm"),
    ("bright", "fast"): ("happy", "cheerful", "bright", "joyful"),
    ("dark", "slow"): ("sad", "melancholic", "dark", "mournful"),
    ("dark", "fast"): ("tense", "dark", "serious", "brooding"),
}
TEMPI = {
    "slow": ("slow", "slow-paced", "unhurried"),
    "medium": ("mid-tempo", "moderate"),
    "fast": ("fast", "up-tempo", "quick"),
}
MASS_NOUNS = ("music", "techno", "jazz", "reggae", "rock", "bossa nova")  # nouns without an article
LEADS = ("{1} {0} melody", "a lead {0}", "{0} playing the melody", "a solo {0}", "{0} lead")
CHORDS = ("{0} chords", "{0} accompaniment", "{1} {0} in the background", "{0} backing")
BASSES = ("{0}", "{1} {0} line", "a deep {0}")
DRUMS = {
    "acoustic": ("drums", "a drum kit", "live drums", "percussion"),
    "electronic": ("electronic drums", "a drum machine", "a four-on-the-floor beat"),
    "chip": ("8-bit drums", "noise drums", "chip percussion"),
}
NO_DRUMS = ("no drums", "no percussion", "without drums")
BAD = ("bad audio quality", "poor audio quality", "low quality recording", "bad recording")
FAULTS = {
    "hiss": ("noisy recording", "loud tape hiss", "hissy recording"),
    "muffled": ("muffled lo-fi recording", "muffled sound", "dull muffled audio"),
    "clipping": ("distorted recording", "clipped distorted audio", "overdriven recording"),
    "bitcrush": ("crushed low bit-rate audio", "crunchy digital artifacts", "low bit depth audio"),
    "dropouts": ("choppy recording", "audio with dropouts", "sound cutting in and out"),
}
CLEAN_WORDS = ("clean recording", "clear studio recording", "high quality recording", "good audio quality")

QUALITY_RATE = {"bad": 0.6, "clean": 0.2}  # share of the captions that mention the recording's quality
ONLY_QUALITY_RATE = 0.1  # share of those captions of bad recordings that mention nothing else
NEGATIVE_PROMPT = "Bad audio quality."


def describe(piece: Piece, audible: frozenset[str], rng: np.random.Generator) -> str:
    """Describes only the music, by a random subset of genre, tempo, mood, key and audible parts.

    Args:
        piece: Piece to describe.
        audible: Parts that play in the window, see :meth:`~qd.data.world.composer.Piece.audible`.
        rng: Draws the subset and the words.
    """
    noun = _pick(rng, GENRE_NOUNS[piece.genre]) if rng.random() < 0.75 else _pick(rng, PLAIN_NOUNS)
    adjectives = _adjectives(piece, rng)
    details = _details(piece, audible, rng)
    if not adjectives and not details:
        adjectives = [_pick(rng, MOODS[_light(piece), _pace(piece)])]
    style = rng.random()
    if style < 0.2:  # a list of tags
        return ", ".join([noun, *adjectives, *details])
    if style < 0.4 and details:  # the parts first
        return _sentence(f"{_joined(details)} in {_noun_phrase(adjectives, noun)}")
    phrase = _noun_phrase(adjectives, noun)
    return _sentence(
        f"{phrase} {_pick(rng, ('with', 'featuring', 'that has'))} {_joined(details)}" if details else phrase
    )


def with_quality(description: str, degradation: str, rng: np.random.Generator) -> str:
    """Adds words about the recording's quality, at the rates above; a clean recording is never called bad."""
    if degradation == CLEAN:
        words = _pick(rng, CLEAN_WORDS) if rng.random() < QUALITY_RATE["clean"] else None
        return f"{description.rstrip('.')}. {_sentence(words)}" if words else description
    if rng.random() >= QUALITY_RATE["bad"]:
        return description
    if rng.random() < ONLY_QUALITY_RATE:
        return NEGATIVE_PROMPT
    phrases = [_pick(rng, BAD)] if rng.random() < 0.6 else []
    if not phrases or rng.random() < 0.4:
        phrases.append(_pick(rng, FAULTS[degradation]))
    words = _sentence(", ".join(phrases))
    return f"{description.rstrip('.')}. {words}" if rng.random() < 0.7 else f"{words} {description}"


def _adjectives(piece: Piece, rng: np.random.Generator) -> list[str]:
    adjectives = []
    if rng.random() < 0.4:
        tempo = "slow" if piece.tempo < 86 else "medium" if piece.tempo < 116 else "fast"
        adjectives.append(_pick(rng, TEMPI[tempo]) if rng.random() < 0.85 else f"{piece.tempo} bpm")
    if rng.random() < 0.4:
        adjectives.append(_pick(rng, MOODS[_light(piece), _pace(piece)]))
    return adjectives


def _details(piece: Piece, audible: frozenset[str], rng: np.random.Generator) -> list[str]:
    details = []
    for part, templates, rate in (("lead", LEADS, 0.7), ("chords", CHORDS, 0.4), ("bass", BASSES, 0.25)):
        if part in audible and rng.random() < rate:
            timbre = piece.timbres[part]
            details.append(_pick(rng, templates).format(timbre, _article(timbre)))
    if "drums" in audible and rng.random() < 0.4:
        details.append(_pick(rng, DRUMS[piece.kit]))
    elif "drums" not in audible and rng.random() < 0.15:
        details.append(_pick(rng, NO_DRUMS))
    if rng.random() < 0.1:
        key = KEYS[piece.key]
        details.append(f"{_article(key[0].lower())} {key} {'minor' if _light(piece) == 'dark' else 'major'} key")
    return [details[i] for i in rng.permutation(len(details))]


def _light(piece: Piece) -> str:
    return "dark" if piece.mode in ("minor", "dorian") else "bright"


def _pace(piece: Piece) -> str:
    return "slow" if piece.tempo < 100 else "fast"


def _joined(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _noun_phrase(adjectives: list[str], noun: str) -> str:
    phrase = " ".join([*adjectives, noun])
    return phrase if noun.endswith(MASS_NOUNS) else f"{_article(phrase)} {phrase}"


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou8" else "a"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
