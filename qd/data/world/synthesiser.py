"""Renders a window of a piece as mono float32 audio at 16 kHz."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.signal import lfilter

from qd.data.world.composer import PARTS, Piece
from qd.data.world.genres import GENRES
from qd.data.world.timbres import SAMPLE_RATE, drum, note

LOUDNESS = 0.12  # root mean square of every clip before the limiter
RELEASE_SECONDS = 0.06
ECHO_SECONDS = 0.19


def render(piece: Piece, start: float = 0.0, seconds: float = 4.0) -> np.ndarray:
    """Renders the window [start, start + seconds) of ``piece``, float32 (samples,) in [−1, 1].

    Notes that began before the window continue in it. Every clip is scaled to the same loudness, so that loudness
    carries no information, and passes a tanh limiter.
    """
    mix = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    for part in PARTS:
        for n in piece.notes:
            if n.part == part and n.onset < start + seconds and n.onset + n.length + RELEASE_SECONDS > start:
                _add(mix, _released(piece.timbres[part], n.pitch, round(n.length * SAMPLE_RATE)), n.onset - start,
                     n.velocity * piece.levels[part])  # fmt: skip
    for h in piece.hits:
        if start - 0.35 < h.onset < start + seconds:
            _add(mix, drum(h.drum, piece.kit), h.onset - start, h.velocity * piece.levels["drums"])
    return _master(mix, GENRES[piece.genre].echo, piece.brightness)


@lru_cache(maxsize=2000)
def _released(timbre: str, pitch: int, length: int) -> np.ndarray:
    """Returns a note that is cut at ``length`` samples and fades out over the release."""
    release = round(RELEASE_SECONDS * SAMPLE_RATE)
    sound = note(timbre, pitch)[: length + release].copy()
    tail = sound[length:]
    tail *= np.linspace(1.0, 0.0, release, dtype=np.float32)[: tail.size]
    return sound


def _add(mix: np.ndarray, sound: np.ndarray, onset: float, gain: float) -> None:
    first = round(onset * SAMPLE_RATE)
    sound = sound[max(0, -first) :]
    first = max(0, first)
    sound = sound[: mix.size - first]
    mix[first : first + sound.size] += np.float32(gain) * sound


def _master(mix: np.ndarray, echo: float, brightness: float) -> np.ndarray:
    """Applies echo, a gentle spectral tilt, the common loudness and a limiter."""
    delay = round(ECHO_SECONDS * SAMPLE_RATE)
    if echo:
        for turn in (1, 2):
            mix[turn * delay :] += np.float32(echo**turn) * mix[: -turn * delay]
    pole = 0.55 * (1.0 - brightness)
    mix = lfilter([1.0 - pole], [1.0, -pole], mix).astype(np.float32)
    loudness = float(np.sqrt(np.mean(mix**2)))
    return np.tanh(mix * (LOUDNESS / max(loudness, 1e-6)), dtype=np.float32)
