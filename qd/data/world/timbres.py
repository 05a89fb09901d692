"""Voices of the synthesiser: wavetables, two-operator FM, plucked strings and noise drums.

Every note of a timbre is rendered once per pitch and cached, like the recordings of a sampler. Mixing a piece then only
adds slices, so that one core makes hundreds of clips per second.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

SAMPLE_RATE = 16_000
SUSTAINED_SECONDS = 4.2  # the longest note that a piece holds
DECAYING_SECONDS = 2.5
HIGHEST_PARTIAL = 7_200.0  # Hz: higher partials would alias


@dataclass(frozen=True)
class Wavetable:
    """Sum of harmonics h with amplitudes a_h under one envelope, with vibrato."""

    partials: tuple[float, ...]
    attack: float = 0.01  # seconds
    decay: float = 0.0  # 1/seconds; 0 holds the note
    vibrato: float = 0.0  # semitones
    drive: float = 0.0  # tanh distortion
    breath: float = 0.0  # level of filtered noise


@dataclass(frozen=True)
class FM:
    """sin(2πft + I(t)·sin(2πrft)), where the index I decays from ``index`` at ``index_decay`` per second."""

    ratio: float
    index: float
    index_decay: float
    attack: float = 0.003
    decay: float = 0.0


@dataclass(frozen=True)
class Pluck:
    """Karplus–Strong: a burst of noise in a delay line of one period, low-passed in each cycle."""

    damping: float  # gain per cycle
    brightness: float  # weight of the undelayed sample in the loop's two-tap filter
    drive: float = 0.0


def _harmonics(roll_off: float, count: int = 24, odd_only: bool = False) -> tuple[float, ...]:
    return tuple(0.0 if odd_only and h % 2 == 0 else h**-roll_off for h in range(1, count + 1))


TIMBRES: dict[str, Wavetable | FM | Pluck] = {
    "flute": Wavetable((1.0, 0.35, 0.1, 0.03), attack=0.05, vibrato=0.15, breath=0.05),
    "clarinet": Wavetable((1.0, 0.03, 0.6, 0.05, 0.35, 0.05, 0.2, 0.03, 0.1), attack=0.03),
    "violin": Wavetable(_harmonics(1.0), attack=0.08, vibrato=0.3),
    "accordion": Wavetable((1.0, 0.8, 0.7, 0.6, 0.2, 0.4, 0.1, 0.25, 0.1, 0.1), attack=0.04, vibrato=0.1),
    "organ": Wavetable((1.0, 0.9, 0.5, 0.7, 0.0, 0.3, 0.0, 0.5), attack=0.006),
    "choir": Wavetable((1.0, 0.5, 0.6, 0.5, 0.1, 0.04, 0.1, 0.12), attack=0.2, vibrato=0.25, breath=0.03),
    "pad": Wavetable(_harmonics(1.7, 10), attack=0.35, vibrato=0.08),
    "saw synth": Wavetable(_harmonics(1.0, 40), attack=0.005),
    "square synth": Wavetable(_harmonics(1.0, 40, odd_only=True), attack=0.002),
    "triangle synth": Wavetable(_harmonics(2.0, 15, odd_only=True), attack=0.002),
    "distorted guitar": Pluck(0.9992, 0.75, drive=9.0),
    "piano": Wavetable((1.0, 0.55, 0.35, 0.25, 0.12, 0.08, 0.06, 0.03), attack=0.003, decay=2.2),
    "trumpet": FM(1.0, 3.2, 1.5, attack=0.035),
    "brass section": FM(1.0, 2.2, 1.0, attack=0.06),
    "electric piano": FM(1.0, 1.6, 4.0, decay=1.8),
    "bell": FM(3.5, 2.6, 1.2, decay=1.3),
    "music box": FM(5.0, 1.1, 6.0, decay=2.6),
    "vibraphone": FM(4.0, 0.6, 3.0, decay=1.2),
    "guitar": Pluck(0.996, 0.5),
    "harp": Pluck(0.998, 0.35),
    "bass guitar": Pluck(0.998, 0.3),
    "upright bass": Wavetable((1.0, 0.5, 0.2, 0.08), attack=0.008, decay=3.0),
    "sine bass": Wavetable((1.0, 0.08), attack=0.02),
    "synth bass": Wavetable(_harmonics(1.2, 14), attack=0.003, decay=4.0),
    "tuba": FM(1.0, 1.1, 0.8, attack=0.04),
}

DRUMS = ("kick", "snare", "hat", "clap", "rim", "shaker")


def frequency(midi: int) -> float:
    """Returns the frequency in Hz of a MIDI pitch: 440 · 2^((midi − 69)/12)."""
    return 440.0 * 2.0 ** ((midi - 69) / 12)


@lru_cache(maxsize=1000)
def note(timbre: str, midi: int) -> np.ndarray:
    """Returns one full-length note, float32 (samples,), with unit loudness (RMS) over its first half second."""
    voice = TIMBRES[timbre]
    render = {Wavetable: _wavetable_note, FM: _fm_note, Pluck: _plucked_note}[type(voice)]
    return _levelled(render(voice, frequency(midi)))


def _levelled(sound: np.ndarray) -> np.ndarray:
    loudness = np.sqrt(np.mean(sound[: SAMPLE_RATE // 2] ** 2))
    return (sound / loudness).astype(np.float32)


def _times(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _envelope(t: np.ndarray, attack: float, decay: float) -> np.ndarray:
    return np.minimum(t / attack, 1.0) * np.exp(-decay * t)


def _noise(*key: float | str) -> np.ndarray:
    """Returns about four seconds of white noise, always the same for the same key."""
    return np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal(int(SUSTAINED_SECONDS * SAMPLE_RATE))


def _wavetable_note(voice: Wavetable, hertz: float) -> np.ndarray:
    t = _times(DECAYING_SECONDS if voice.decay else SUSTAINED_SECONDS)
    cycle = np.arange(2048) * (2 * np.pi / 2048)
    audible = [a for h, a in enumerate(voice.partials, 1) if h * hertz < HIGHEST_PARTIAL]
    table = sum(a * np.sin(h * cycle) for h, a in enumerate(audible or voice.partials[:1], 1))
    # A 5.5 Hz vibrato of d semitones changes the phase by up to f·(2^(d/12) − 1)/5.5/(2π) cycles; it fades in.
    depth = hertz * (2.0 ** (voice.vibrato / 12) - 1) / 5.5 / (2 * np.pi)
    phase = hertz * t + depth * np.minimum(t / 0.4, 1.0) * np.sin(2 * np.pi * 5.5 * t)
    sound = np.interp(phase % 1.0 * 2048, np.arange(2049), np.append(table, table[0]))
    if voice.breath:
        sound = sound + voice.breath * np.abs(table).max() * lfilter(
            [1.0, -0.6], 1.0, _noise("breath", hertz)[: t.size]
        )
    return sound * _envelope(t, voice.attack, voice.decay)


def _fm_note(voice: FM, hertz: float) -> np.ndarray:
    t = _times(DECAYING_SECONDS if voice.decay else SUSTAINED_SECONDS)
    # Carson's rule bounds the width of the side bands: keep ratio·f·(index + 1) below the highest partial.
    ceiling = max(0.2, (HIGHEST_PARTIAL - hertz) / (voice.ratio * hertz) - 1)
    index = min(voice.index, ceiling) * (0.35 + 0.65 * np.exp(-voice.index_decay * t))
    modulator = np.sin(2 * np.pi * voice.ratio * hertz * t)
    return np.sin(2 * np.pi * hertz * t + index * modulator) * _envelope(t, voice.attack, voice.decay)


def _plucked_note(voice: Pluck, hertz: float) -> np.ndarray:
    # The loop's filter delays by (1 − brightness) samples, so the delay line is shorter by that amount; linear
    # interpolation supplies the fractional part.
    period = SAMPLE_RATE / hertz - (1 - voice.brightness)
    whole = int(period)
    fraction = period - whole
    count = int((SUSTAINED_SECONDS if voice.drive else DECAYING_SECONDS) * SAMPLE_RATE)
    excitation = np.zeros(count)
    excitation[: whole + 1] = lfilter([0.5, 0.5], 1.0, _noise("pluck", hertz)[: whole + 1])
    # y[n] = x[n] + damping · (two-tap low-pass ∗ linear interpolation of the fractional delay)(y)[n − period]
    taps = np.convolve([voice.brightness, 1 - voice.brightness], [1 - fraction, fraction]) * voice.damping
    sound = lfilter([1.0], np.concatenate([[1.0], np.zeros(whole - 1), -taps]), excitation)
    if voice.drive:
        sound = np.tanh(voice.drive * sound / np.abs(sound[: SAMPLE_RATE // 4]).max())
        sound = lfilter([0.4, 0.4], [1.0, -0.2], sound)
    return sound * np.minimum(_times(count / SAMPLE_RATE) / 0.002, 1.0)


@lru_cache(maxsize=64)
def drum(kind: str, kit: str) -> np.ndarray:
    """Returns one hit of a drum of the ``acoustic``, ``electronic`` or ``chip`` kit, float32 (samples,), unit peak."""
    t = _times(0.35)
    white = _noise("drum", kind, kit)[: t.size]
    pitch, decay = {"acoustic": (62.0, 16.0), "electronic": (48.0, 9.0), "chip": (90.0, 18.0)}[kit]
    if kind == "kick":
        sweep = 2 * np.pi * np.cumsum(pitch + 160.0 * np.exp(-35.0 * t)) / SAMPLE_RATE
        sound = np.sin(sweep) * np.exp(-decay * t)
    elif kind == "snare":
        sound = (0.6 * np.sin(2 * np.pi * 3.1 * pitch * t) + 0.7 * _band(white, 900.0, 6_500.0)) * np.exp(-17.0 * t)
    elif kind == "clap":
        bursts = sum(np.where(t >= d, np.exp(-90.0 * (t - d).clip(0)), 0.0) for d in (0.0, 0.012, 0.024))
        sound = _band(white, 800.0, 3_500.0) * (bursts + np.exp(-16.0 * t))
    elif kind == "rim":
        sound = (np.sin(2 * np.pi * 1_700.0 * t) + 0.5 * np.sin(2 * np.pi * 2_600.0 * t)) * np.exp(-70.0 * t)
    else:
        low, rate = {"hat": (5_500.0, 45.0), "shaker": (3_800.0, 60.0)}[kind]
        sound = _band(white, low, 7_800.0) * np.exp(-rate * t)
    if kit == "chip":
        sound = np.repeat(sound[::4], 4)[: t.size]
    return (sound / np.abs(sound).max()).astype(np.float32)


def _band(sound: np.ndarray, low: float, high: float) -> np.ndarray:
    return sosfilt(butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), sound)
