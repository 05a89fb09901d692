"""The built-in world: captioned recordings and prompts, each a pure function of a split and an index.

No two splits share a seed, and the three prompt sets share no text: a hash of its text assigns each prompt to one set.
Results do not depend on the number of workers, on order, or on the machine.
"""

from __future__ import annotations

import zlib
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from qd.data.world.captions import describe, with_quality
from qd.data.world.composer import PARTS, Piece, compose
from qd.data.world.degradation import CLEAN, DEGRADATIONS, degrade
from qd.data.world.drumming import with_drums, without_drums
from qd.data.world.harmony import in_other_mode
from qd.data.world.styles import SCALES
from qd.data.world.synthesiser import render
from qd.data.world.timbres import SAMPLE_RATE

__all__ = [
    "BUILTIN",
    "SAMPLE_RATE",
    "SPLITS",
    "Clip",
    "DrumChange",
    "change_drums",
    "change_mode",
    "chunks",
    "clip",
    "prompt",
    "prompt_set",
]

BUILTIN = "builtin"
"""Name of everything from this world: prompts, recordings, and the models trained on them."""

SPLITS = {
    name: number
    for number, name in enumerate(
        ("train", "development", "heldout", "codec", "base", "embedder", "embedder_heldout", "adherence", "preference",
         "validation", "calibration", "listener_train", "listener_test")
    )
}  # fmt: skip
QUALITY_PROMPTS = 101  # size of the held-out set (Section 3.5 of the paper); its first 50 measure diversity
ANY = "any"
"""The only stratum of this edition's descriptions."""

DEGRADED_RATE = 0.5
CARELESSNESS = {"clean": 0.15, "degraded": 0.5}  # players in bad recordings are more often careless
_PROMPT_BUCKETS = {"development": (0, 1), "heldout": (2, 3), "train": range(4, 16)}


@dataclass(frozen=True)
class Clip:
    """A captioned window of a recording.

    Attributes:
        audio: Samples, float32 (samples,) at 16 kHz in [−1, 1].
        caption: Text that may mention the recording's quality.
        description: The same text without the recording's quality.
        piece: The music as composed.
        degradation: ``"clean"`` or one of ``qd.data.world.degradation.DEGRADATIONS``.
        severity: Severity of the degradation in [0, 1]; 0 when clean.
        stratum: Kind of the description; this edition has only one.
    """

    audio: np.ndarray
    caption: str
    description: str
    piece: Piece
    degradation: str
    severity: float
    stratum: str = ANY


class DrumChange(NamedTuple):
    """One window of a recording, float32 (samples,), original and with changed drums; nothing else differs."""

    original: np.ndarray
    changed: np.ndarray
    added: bool
    """True if drums were added, because the window had none; False if they were removed."""


@dataclass(frozen=True)
class _Recording:
    piece: Piece
    degradation: str
    severity: float


def clip(split: str, index: int, seconds: float = 4.0) -> Clip:
    """Returns clip ``index`` of ``split``: one window of a piece that no other index shares.

    Raises:
        ValueError: The split is unknown, the index is negative, or ``seconds`` is more than 16, the shortest piece.
    """
    rng = _generator(split, index)
    recording = _record(rng)
    return _window(recording, rng.uniform(0.0, _latest_start(seconds)), seconds, rng)


def chunks(split: str, index: int, n: int = 2, seconds: float = 4.0) -> list[Clip]:
    """Returns ``n`` windows of recording ``index`` that do not overlap, in random order.

    Raises:
        ValueError: ``n`` windows of ``seconds`` do not fit into 16 s, or as :func:`clip`.
    """
    rng = _generator(split, index)
    recording = _record(rng)
    return [_window(recording, start, seconds, rng) for start in _starts(rng, n, seconds)]


def change_drums(split: str, index: int, n: int = 2, seconds: float = 4.0) -> DrumChange:
    """Returns the first window of :func:`chunks` with the same arguments, and the same window with changed drums.

    Drums in the window are removed; a window without drums gets drums throughout.

    Raises:
        ValueError: As :func:`chunks`.
    """
    rng = _generator(split, index)
    recording = _record(rng)
    start = _starts(rng, n, seconds)[0]
    added = "drums" not in recording.piece.audible(start, seconds)
    # The source of added drums has its own generator, so that the noise stays the same.
    piece = with_drums(recording.piece, np.random.default_rng(index)) if added else without_drums(recording.piece)
    return DrumChange(*_twice(recording, piece, start, seconds, rng), added)


def change_mode(split: str, index: int, n: int = 2, seconds: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first window of :func:`chunks` with the same arguments, and the same window in the other mode.

    Nothing but the pitches differs; see :func:`qd.data.world.harmony.in_other_mode`.

    Raises:
        ValueError: As :func:`chunks`.
    """
    rng = _generator(split, index)
    recording = _record(rng)
    start = _starts(rng, n, seconds)[0]
    return _twice(recording, in_other_mode(recording.piece, SCALES), start, seconds, rng)


def prompt(split: str, index: int) -> str:
    """Returns prompt ``index`` of ``"train"``, ``"development"`` or ``"heldout"``: a description of only the music.

    Two indices can give the same text, but no text is in two sets.

    Raises:
        ValueError: The split has no prompts, or the index is negative.
    """
    if split not in _PROMPT_BUCKETS:
        raise ValueError(f"no prompts in split {split!r}: expected one of {', '.join(_PROMPT_BUCKETS)}")
    rng = _generator(split, index)
    while True:
        piece = compose(rng, carelessness=0.0)
        text = describe(piece, piece.audible(rng.uniform(0.0, _latest_start(4.0)), 4.0), rng)
        if zlib.crc32(text.lower().encode()) % 16 in _PROMPT_BUCKETS[split]:
            return text


@lru_cache(maxsize=32)
def prompt_set(split: str, size: int) -> tuple[str, ...]:
    """Returns the first ``size`` distinct prompts of ``split``."""
    texts: dict[str, None] = {}
    index = 0
    while len(texts) < size:
        texts[prompt(split, index)] = None
        index += 1
    return tuple(texts)


def _generator(split: str, index: int) -> np.random.Generator:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"index is {index}: expected 0 or more")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([SPLITS[split], index])))


def _starts(rng: np.random.Generator, n: int, seconds: float) -> list[float]:
    """Draws the starts, in seconds and in random order, of ``n`` windows that do not overlap."""
    if not 1 <= n <= 16.0 / seconds:
        raise ValueError(f"{n} windows of {seconds} s do not fit into a piece of 16 s: use fewer or shorter windows")
    starts = np.sort(rng.uniform(0.0, 16.0 - n * seconds, n)) + np.arange(n) * seconds
    return [float(starts[i]) for i in rng.permutation(n)]


def _latest_start(seconds: float) -> float:
    if not 0.0 < seconds <= 16.0:
        raise ValueError(f"seconds is {seconds}: expected more than 0 and at most 16, the length of the shortest piece")
    return 16.0 - seconds


def _record(rng: np.random.Generator) -> _Recording:
    degraded = rng.random() < DEGRADED_RATE
    piece = compose(rng, CARELESSNESS["degraded" if degraded else "clean"])
    kind = DEGRADATIONS[int(rng.integers(len(DEGRADATIONS)))] if degraded else CLEAN
    return _Recording(piece, kind, float(rng.uniform(0.2, 1.0)) if degraded else 0.0)


def _twice(
    recording: _Recording, piece: Piece, start: float, seconds: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Renders the window of the recording, and of the same recording of another piece."""
    same_rng = deepcopy(rng)  # the degradation of the other piece must draw the same noise
    changed = replace(recording, piece=piece)
    return _window(recording, start, seconds, rng).audio, _window(changed, start, seconds, same_rng).audio


def _window(recording: _Recording, start: float, seconds: float, rng: np.random.Generator) -> Clip:
    piece = recording.piece
    audio = degrade(render(piece, start, seconds), recording.degradation, recording.severity, rng)
    audible = piece.audible(start, seconds) or frozenset(PARTS[:1])
    description = describe(piece, audible, rng)
    caption = with_quality(description, recording.degradation, rng)
    return Clip(audio, caption, description, piece, recording.degradation, recording.severity)
