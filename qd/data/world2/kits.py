"""Drum kits: each piece draws its own pitches, decays and brightness around those of a kind of kit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.signal import butter, sosfiltfilt

from qd.data.world2.voices import SAMPLE_RATE

DRUMS = ("kick", "snare", "hat", "open hat", "clap", "rim", "tom", "shaker", "conga", "brush")
KITS = ("acoustic", "electronic", "chip", "hand")
HIT_SECONDS = 0.4
_TIMES = (np.arange(int(HIT_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE).astype(np.float32)
_BANDS = ((300.0, 1_200.0), (900.0, 3_000.0), (2_500.0, 6_000.0), (5_000.0, 7_700.0))


@dataclass(frozen=True)
class Kit:
    """Sound of one piece's drums.

    Attributes:
        kind: One of ``KITS``.
        pitch: Factor of the drums' pitches.
        decay: Factor of their decay rates: above 1 is shorter.
        brightness: From −1 (dull) to 1 (bright); weighs the bands of the noise.
        seed: Chooses the noise.
    """

    kind: str
    pitch: float = 1.0
    decay: float = 1.0
    brightness: float = 0.0
    seed: int = 0


def hit(drum: str, kit: Kit) -> np.ndarray:
    """Renders one hit, float32 (samples,), with unit peak."""
    t = _TIMES
    kick_pitch, kick_decay = {
        "acoustic": (64.0, 15.0),
        "electronic": (48.0, 8.0),
        "chip": (92.0, 18.0),
        "hand": (80.0, 14.0),
    }[kit.kind]
    if drum == "kick":
        hertz = kit.pitch * (kick_pitch + 150.0 * np.exp(-35.0 * t))
        sound = np.sin(2 * np.pi * np.cumsum(hertz, dtype=np.float64) / SAMPLE_RATE) * _fall(kick_decay, kit)
        sound += 0.15 * _noise(kit, (0.2, 1.0, 0.4, 0.1)) * _fall(120.0, kit)
    elif drum in ("tom", "conga"):
        centre, rate = (110.0, 11.0) if drum == "tom" else (230.0, 16.0)
        hertz = kit.pitch * centre * (1.0 + 0.35 * np.exp(-25.0 * t))
        sound = np.sin(2 * np.pi * np.cumsum(hertz, dtype=np.float64) / SAMPLE_RATE) * _fall(rate, kit)
        sound += 0.2 * _noise(kit, (1.0, 0.6, 0.2, 0.0)) * _fall(50.0, kit)
    elif drum == "snare":
        body = np.sin(2 * np.pi * 190.0 * kit.pitch * t) * _fall(22.0, kit)
        sound = 0.7 * body + 0.6 * _noise(kit, (0.5, 1.0, 1.0, 0.6)) * _fall(16.0, kit)
    elif drum == "clap":
        bursts = sum(np.exp(-90.0 * np.maximum(t - d, 0.0)) * (t >= d) for d in (0.0, 0.011, 0.023))
        sound = _noise(kit, (0.5, 1.0, 0.5, 0.1)) * (bursts + 0.8 * _fall(15.0, kit))
    elif drum == "rim":
        sound = np.sin(2 * np.pi * 1_700.0 * kit.pitch * t) + 0.5 * np.sin(2 * np.pi * 2_610.0 * kit.pitch * t)
        sound *= _fall(70.0, kit)
    else:
        weights, rate = {
            "hat": ((0.0, 0.1, 0.6, 1.0), 45.0),
            "open hat": ((0.0, 0.1, 0.7, 1.0), 11.0),
            "shaker": ((0.0, 0.3, 1.0, 0.5), 55.0),
            "brush": ((0.3, 0.8, 0.6, 0.3), 14.0),
        }[drum]
        sound = _noise(kit, weights) * _fall(rate, kit)
        if drum in ("shaker", "brush"):
            sound *= np.minimum(t / 0.02, 1.0)
    if kit.kind == "chip":
        sound = np.repeat(sound[::4], 4)[: t.size]
    return (sound / np.abs(sound).max()).astype(np.float32)


def _fall(rate: float, kit: Kit) -> np.ndarray:
    return np.exp(-rate * kit.decay * _TIMES)


def _noise(kit: Kit, weights: tuple[float, ...]) -> np.ndarray:
    """Mixes the bands of the noise by ``weights``; the kit's brightness tilts them by up to 6 dB a band."""
    tilt = 2.0 ** (kit.brightness * (np.arange(len(_BANDS)) - 1.5))
    start = kit.seed * 977 % (3 * SAMPLE_RATE)
    mix = (np.asarray(weights) * tilt).astype(np.float32)
    return mix @ _bands()[:, start : start + _TIMES.size]


@lru_cache(maxsize=1)
def _bands() -> np.ndarray:
    """Four seconds of white noise in each band with unit loudness, float32 (bands, samples)."""
    white = np.random.default_rng(11).standard_normal(4 * SAMPLE_RATE)
    filtered = [sosfiltfilt(butter(2, b, "bandpass", fs=SAMPLE_RATE, output="sos"), white) for b in _BANDS]
    return np.stack([band / band.std() for band in filtered]).astype(np.float32)
