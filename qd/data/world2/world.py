"""The second built-in world: captioned recordings and prompts, each a pure function of a split and an index.

No two splits share a seed, and the three prompt sets share no text: a hash of its text assigns each prompt to one set.
Results do not depend on the number of workers, on order, or on the machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count

import numpy as np

from qd.data.world.captions import with_quality
from qd.data.world.degradation import CLEAN, DEGRADATIONS, degrade
from qd.data.world.harmony import in_other_mode
from qd.data.world.world import SPLITS, DrumChange
from qd.data.world2.captions import STRATUM_RATES, Request, draw_request, draw_stratum, write
from qd.data.world2.composer import MINIMUM_SECONDS, compose
from qd.data.world2.drumming import with_drums, without_drums
from qd.data.world2.patterns import SCALES
from qd.data.world2.piece import PARTS, Piece
from qd.data.world2.synthesiser import render
from qd.data.world2.voices import SAMPLE_RATE

__all__ = [
    "SAMPLE_RATE",
    "SPLITS",
    "Clip",
    "Prompt",
    "change_drums",
    "change_mode",
    "chunks",
    "clip",
    "perfect_clips",
    "prompt",
    "prompts",
]

DEGRADED_RATE = 0.3
CARELESSNESS = {"clean": 0.15, "degraded": 0.5}  # players in bad recordings are more often careless
DETAILED_SPLIT, DETAILED_RATES = "adherence", (0.2, 0.3, 0.5)
"""Split with more specific captions, so that its scorer learns every word, and the rates of its strata."""

CARELESS_SPLIT = "preference"
"""Split whose players are careless in half of all pieces, so that its scorer has enough errors to learn from."""

PROMPT_STRATA = ("open", "medium", "open", "specific")
"""Strata of the prompts of a set, in turn, so that the first n prompts hold the same mixture as all."""

_EDITION = 2  # part of every seed, so that no clip depends on another edition of the world
_PROMPT_BUCKETS = {"development": (0, 1), "heldout": (2, 3), "train": range(4, 16)}


@dataclass(frozen=True)
class Clip:
    """A captioned window of a recording.

    Attributes:
        audio: Samples, float32 (samples,) at 16 kHz in [−1, 1].
        caption: Text that may mention the recording's quality.
        description: The same text without the recording's quality.
        request: What the description asks for.
        piece: The music as composed.
        degradation: ``"clean"`` or one of ``qd.data.world.degradation.DEGRADATIONS``.
        severity: Severity of the degradation in [0, 1]; 0 when clean.
        stratum: How much the description asks for: ``"open"``, ``"medium"`` or ``"specific"``.
    """

    audio: np.ndarray
    caption: str
    description: str
    request: Request
    piece: Piece
    degradation: str
    severity: float
    stratum: str


@dataclass(frozen=True)
class Prompt:
    """A text, what it asks for, and its stratum: ``"open"``, ``"medium"`` or ``"specific"``."""

    text: str
    request: Request
    stratum: str


@dataclass(frozen=True)
class _Recording:
    piece: Piece
    degradation: str
    severity: float
    stratum_rates: tuple[float, ...]


def clip(split: str, index: int, seconds: float = 4.0) -> Clip:
    """Returns clip ``index`` of ``split``: one window of a piece that no other index shares.

    Raises:
        ValueError: The split is unknown, the index is negative, or ``seconds`` is more than 16, the shortest piece.
    """
    rng = _generator(split, index)
    recording = _record(rng, split)
    return _window(recording, rng.uniform(0.0, _latest_start(seconds)), seconds, rng)


def chunks(split: str, index: int, n: int = 2, seconds: float = 4.0) -> list[Clip]:
    """Returns ``n`` windows of recording ``index`` that do not overlap, in random order.

    Raises:
        ValueError: ``n`` windows of ``seconds`` do not fit into 16 s, or as :func:`clip`.
    """
    rng = _generator(split, index)
    recording = _record(rng, split)
    return [_window(recording, start, seconds, rng) for start in _starts(rng, n, seconds)]


def change_drums(split: str, index: int, n: int = 2, seconds: float = 4.0) -> DrumChange:
    """Returns the first window of :func:`chunks` with the same arguments, and the same window with changed drums.

    Drums in the window are removed; a window without drums gets drums throughout.

    Raises:
        ValueError: As :func:`chunks`.
    """
    rng = _generator(split, index)
    recording = _record(rng, split)
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
    recording = _record(rng, split)
    start = _starts(rng, n, seconds)[0]
    return _twice(recording, in_other_mode(recording.piece, SCALES), start, seconds, rng)


def prompt(split: str, index: int) -> Prompt:
    """Returns prompt ``index`` of ``"train"``, ``"development"`` or ``"heldout"``: a description of only the music.

    Two indices can give the same text, but no text is in two sets.

    Raises:
        ValueError: The split has no prompts, or the index is negative.
    """
    if split not in _PROMPT_BUCKETS:
        raise ValueError(f"no prompts in split {split!r}: expected one of {', '.join(_PROMPT_BUCKETS)}")
    rng, stratum = _generator(split, index), PROMPT_STRATA[index % len(PROMPT_STRATA)]
    while True:
        piece = compose(rng, carelessness=0.0)
        request = draw_request(piece, _audible(piece, rng.uniform(0.0, _latest_start(4.0)), 4.0), stratum, rng)
        text = write(request, rng)
        if zlib.crc32(text.lower().encode()) % 16 in _PROMPT_BUCKETS[split]:
            return Prompt(text, request, stratum)


@lru_cache(maxsize=32)
def prompts(split: str, size: int) -> tuple[Prompt, ...]:
    """Returns ``size`` prompts of ``split`` with distinct texts, in turn of the strata ``PROMPT_STRATA``."""
    found: dict[str, Prompt] = {}
    index = 0
    while len(found) < size:
        stratum = PROMPT_STRATA[len(found) % len(PROMPT_STRATA)]
        candidate = prompt(split, index)
        if candidate.stratum == stratum and candidate.text not in found:
            found[candidate.text] = candidate
        index += 1
    return tuple(found.values())


def perfect_clips(request: Request, seed: int, seconds: float = 4.0) -> Iterator[np.ndarray]:
    """Yields clean, faultless clips that the request fits, float32 (samples,): the ideal for its prompt.

    They are drawn by rejection from the world's own pieces, so a request with rare values takes long.
    """
    for index in count():
        rng = np.random.default_rng([_EDITION, len(SPLITS), seed, index])
        piece, start = compose(rng, 0.0, request.genres), rng.uniform(0.0, _latest_start(seconds))
        if request.fits(piece, _audible(piece, start, seconds)):
            yield render(piece, start, seconds)


def _generator(split: str, index: int) -> np.random.Generator:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"index is {index}: expected 0 or more")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([_EDITION, SPLITS[split], index])))


def _starts(rng: np.random.Generator, n: int, seconds: float) -> list[float]:
    """Draws the starts, in seconds and in random order, of ``n`` windows that do not overlap."""
    if not 1 <= n <= MINIMUM_SECONDS / seconds:
        raise ValueError(f"{n} windows of {seconds} s do not fit into a piece of 16 s: use fewer or shorter windows")
    starts = np.sort(rng.uniform(0.0, MINIMUM_SECONDS - n * seconds, n)) + np.arange(n) * seconds
    return [float(starts[i]) for i in rng.permutation(n)]


def _latest_start(seconds: float) -> float:
    if not 0.0 < seconds <= MINIMUM_SECONDS:
        raise ValueError(f"seconds is {seconds}: expected more than 0 and at most 16, the length of the shortest piece")
    return MINIMUM_SECONDS - seconds


def _audible(piece: Piece, start: float, seconds: float) -> frozenset[str]:
    return piece.audible(start, seconds) or frozenset(PARTS[:1])


def _record(rng: np.random.Generator, split: str) -> _Recording:
    degraded = rng.random() < DEGRADED_RATE
    carelessness = CARELESSNESS["degraded" if degraded or split == CARELESS_SPLIT else "clean"]
    piece = compose(rng, carelessness)
    kind = DEGRADATIONS[int(rng.integers(len(DEGRADATIONS)))] if degraded else CLEAN
    severity = float(rng.uniform(0.2, 1.0)) if degraded else 0.0
    return _Recording(piece, kind, severity, DETAILED_RATES if split == DETAILED_SPLIT else STRATUM_RATES)


def _twice(
    recording: _Recording, piece: Piece, start: float, seconds: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Renders the window of the recording, and of the same recording of another piece."""
    same_rng = deepcopy(rng)  # the degradation of the other piece must draw the same noise
    changed = replace(recording, piece=piece)
    return _window(recording, start, seconds, rng).audio, _window(changed, start, seconds, same_rng).audio


def _window(recording: _Recording, start: float, seconds: float, rng: np.random.Generator) -> Clip:
    piece, stratum = recording.piece, draw_stratum(rng, recording.stratum_rates)
    audio = degrade(render(piece, start, seconds), recording.degradation, recording.severity, rng)
    request = draw_request(piece, _audible(piece, start, seconds), stratum, rng)
    description = write(request, rng)
    caption = with_quality(description, recording.degradation, rng)
    return Clip(audio, caption, description, request, piece, recording.degradation, recording.severity, stratum)
