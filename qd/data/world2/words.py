"""Words of the captions: nouns of genres, moods, tempi, scenes and parts. A row of data for each, no code."""

from __future__ import annotations

from dataclasses import dataclass

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
PLAIN_NOUNS = ("piece", "tune", "music", "track", "instrumental", "melody", "composition")
MASS_NOUNS = ("music", "techno", "jazz", "reggae", "rock", "bossa nova")  # nouns without an article
OPENINGS = ("{phrase}", "play {phrase}", "I want {phrase}", "instrumental {bare}", "{bare}")  # of a short text

MOODS = {
    ("bright", "slow"): ("peaceful", "warm", "tender", "calm", "dreamy"),
    ("bright", "fast"): ("happy", "cheerful", "joyful", "lively", "playful"),
    ("dark", "slow"): ("sad", "melancholic", "mournful", "gloomy", "lonely"),
    ("dark", "fast"): ("tense", "serious", "brooding", "restless", "urgent"),
}
"""Words of a mood by mode (bright or dark) and pace (slow is below 100 beats per minute)."""

TEMPI = {
    "slow": ("slow", "slow-paced", "unhurried"),
    "medium": ("mid-tempo", "moderate"),
    "fast": ("fast", "up-tempo", "quick"),
}
DENSITIES = {"sparse": ("a sparse melody", "few notes", "long notes"), "busy": ("a busy melody", "many fast notes")}
SPACES = {"dry": ("a dry close sound", "no reverb"), "wide": ("a lot of reverb", "a spacious sound", "a large hall")}
LEADS = ("{1} {0} melody", "a lead {0}", "{0} playing the melody", "a solo {0}", "{0} lead")
CHORDS = ("{0} chords", "{0} accompaniment", "{1} {0} in the background", "{0} backing")
BASSES = ("{0}", "{1} {0} line", "a deep {0}")
DRUMS = {
    "acoustic": ("drums", "a drum kit", "live drums"),
    "electronic": ("electronic drums", "a drum machine", "a dance beat"),
    "chip": ("8-bit drums", "noise drums", "chip percussion"),
    "hand": ("hand percussion", "soft percussion", "light drums"),
}
NO_DRUMS = ("no drums", "no percussion")


@dataclass(frozen=True)
class Scene:
    """A scene that music can go with, and which music does.

    Attributes:
        texts: Ways to name the scene, each a noun phrase.
        genres: Genres that fit.
        moods: Moods that fit, keys of ``MOODS``.
    """

    texts: tuple[str, ...]
    genres: tuple[str, ...]
    moods: tuple[tuple[str, str], ...]


_SLOW, _FAST = (("bright", "slow"), ("dark", "slow")), (("bright", "fast"), ("dark", "fast"))
_BRIGHT, _DARK = (("bright", "slow"), ("bright", "fast")), (("dark", "slow"), ("dark", "fast"))
SCENES = (
    Scene(("a peaceful sunset on a beach", "the sea at dusk", "an evening by the ocean"),
          ("bossa nova", "reggae", "ambient", "folk", "jazz"), _SLOW + (("bright", "fast"),)),
    Scene(("a night drive through the city", "neon lights at midnight", "a city at night"),
          ("techno", "funk", "ambient", "jazz", "rock"), _DARK),
    Scene(("a child falling asleep", "a nursery at night", "a mother rocking a cradle"),
          ("lullaby", "ambient", "waltz", "folk"), (("bright", "slow"),)),
    Scene(("a hero jumping over platforms", "an arcade hall", "the first level of a game"),
          ("chiptune", "techno", "rock"), _BRIGHT + _DARK[1:]),
    Scene(("a parade in a small town", "soldiers on the square", "a brass band passing by"),
          ("march", "folk", "waltz"), (("bright", "fast"), ("bright", "slow"))),
    Scene(("a smoky bar after midnight", "a last drink at the counter", "an old cellar club"),
          ("jazz", "funk", "bossa nova", "reggae"), _DARK + (("bright", "slow"),)),
    Scene(("a village dance", "a wedding in a barn", "a harvest feast"),
          ("folk", "waltz", "march", "rock"), (("bright", "fast"),)),
    Scene(("a lonely walk in the rain", "autumn leaves in an empty park", "a farewell at the station"),
          ("ambient", "jazz", "folk", "waltz", "reggae"), (("dark", "slow"),)),
    Scene(("a chase through narrow streets", "an escape over the roofs", "a race against time"),
          ("techno", "rock", "chiptune", "funk"), (("dark", "fast"),)),
    Scene(("a summer party by the pool", "friends dancing in the garden", "a barbecue in July"),
          ("funk", "reggae", "bossa nova", "techno", "rock"), (("bright", "fast"), ("bright", "slow"))),
    Scene(("a quiet Sunday morning", "coffee in the sunshine", "breakfast with the window open"),
          ("bossa nova", "folk", "jazz", "lullaby", "ambient"), _BRIGHT),
    Scene(("a spaceship drifting between stars", "the surface of the moon", "a slow flight over clouds"),
          ("ambient", "techno", "chiptune"), _SLOW + (("dark", "fast"),)),
    Scene(("a carnival in the streets", "masks and confetti", "a circus coming to town"),
          ("bossa nova", "march", "funk", "waltz", "chiptune"), (("bright", "fast"),)),
    Scene(("a campfire in the mountains", "a cabin in the woods", "a night under the stars"),
          ("folk", "reggae", "ambient", "lullaby"), _SLOW + (("bright", "fast"),)),
    Scene(("a ball in an old palace", "candles and silk gowns", "a dance of ghosts in a castle"),
          ("waltz", "march", "jazz"), _BRIGHT + _DARK),
    Scene(("a training session in the gym", "a motorcycle on an open road", "a boxer before the fight"),
          ("rock", "techno", "funk"), _FAST),
)  # fmt: skip
SCENE_OPENINGS = ("{}", "music for {}", "the sound of {}", "a soundtrack for {}", "music that sounds like {}")
