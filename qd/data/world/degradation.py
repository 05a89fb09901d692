"""Degrades clips as bad recordings do: hiss, muffling, clipping, bit-crushing and dropouts."""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, sosfilt

from qd.data.world.timbres import SAMPLE_RATE

CLEAN = "clean"
DEGRADATIONS = ("hiss", "muffled", "clipping", "bitcrush", "dropouts")


def degrade(audio: np.ndarray, kind: str, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Returns the degraded clip.

    Args:
        audio: Clip, float32 (samples,) in [−1, 1].
        kind: ``"clean"``, which returns the clip itself, or one of ``DEGRADATIONS``.
        severity: From 0 (barely audible) to 1 (severe).
        rng: Draws the noise and the positions of the dropouts.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind == CLEAN:
        return audio
    if kind not in DEGRADATIONS:
        raise ValueError(f"unknown degradation {kind!r}: expected {CLEAN!r} or one of {', '.join(DEGRADATIONS)}")
    return _EFFECTS[kind](audio, severity, rng).clip(-1.0, 1.0).astype(np.float32)


def _hiss(audio: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    signal_to_noise = 18.0 - 16.0 * severity  # dB
    noise = rng.standard_normal(audio.size, dtype=np.float32)
    return audio + noise * _loudness(audio) * 10.0 ** (-signal_to_noise / 20)


def _muffled(audio: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    cutoff = 1_600.0 * 0.3**severity  # Hz: 1,600 down to 480
    dull = sosfilt(butter(4, cutoff, fs=SAMPLE_RATE, output="sos"), audio)
    return dull * _loudness(audio) / _loudness(dull)


def _clipping(audio: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    limit = _loudness(audio) * (0.7 - 0.6 * severity)
    clipped = audio.clip(-limit, limit)
    return clipped * _loudness(audio) / _loudness(clipped)


def _bitcrush(audio: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    hold = 3 + round(4 * severity)  # samples that share one value: the sample rate divided
    step = 0.06 + 0.14 * severity
    return np.repeat(np.round(audio[::hold] / step) * step, hold)[: audio.size]


def _dropouts(audio: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    gated = audio.copy()
    for _ in range(rng.poisson((3.0 + 5.0 * severity) * audio.size / SAMPLE_RATE)):
        first = int(rng.integers(audio.size))
        gated[first : first + int(rng.uniform(0.03, 0.13) * SAMPLE_RATE)] = 0.0
    return gated


def _loudness(audio: np.ndarray) -> float:
    return max(float(np.sqrt(np.mean(audio**2))), 1e-6)


_EFFECTS = {"hiss": _hiss, "muffled": _muffled, "clipping": _clipping, "bitcrush": _bitcrush, "dropouts": _dropouts}
