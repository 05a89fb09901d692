"""Voices of the synthesiser: a timbre's centre values, and a tone that moves them for one piece.

A harmonic voice reads two wavetables and moves between them while the note sounds: from bright to dull (plucked and
struck strings), from dull to bright (brass), or back and forth (pads). An inharmonic voice (bells, bars) adds decaying
sine partials. Every piece draws its own tone: brightness, attack, detuning, vibrato, breath and motion are continuous,
so that two pieces with the same instrument do not sound the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SAMPLE_RATE = 16_000
HIGHEST_PARTIAL = 7_400.0
"""Hz. Higher partials would alias."""

LONGEST_NOTE = 4.5  # seconds
RELEASE_SECONDS = 0.06
_TABLE = 4096  # samples of one period of a wavetable
_CONTROL = 32  # samples between two values of a slow control curve
_TIMES = np.arange(int((LONGEST_NOTE + RELEASE_SECONDS) * SAMPLE_RATE)) / SAMPLE_RATE


@dataclass(frozen=True)
class Voice:
    """Centre values of a timbre.

    Attributes:
        partials: Amplitudes of the harmonics, or of the partials at ``ratios``.
        ratios: Frequencies of the partials as multiples of the fundamental; empty for a harmonic voice.
        attack: Rise time in seconds.
        decay: Decay of the amplitude, 1/s; 0 holds the note.
        motion: ``"fade"`` (bright to dull), ``"bloom"`` (dull to bright), ``"sweep"`` (back and forth) or ``"still"``.
        vibrato: Depth in semitones.
        breath: Level of the noise.
        drive: Gain before the part's tanh; 0 leaves the part clean.
    """

    partials: tuple[float, ...]
    ratios: tuple[float, ...] = ()
    attack: float = 0.01
    decay: float = 0.0
    motion: str = "still"
    vibrato: float = 0.0
    breath: float = 0.0
    drive: float = 0.0


@dataclass(frozen=True)
class Tone:
    """What one piece changes in a voice: continuous values that are all good.

    Attributes:
        brightness: From −1 (dull) to 1 (bright); moves the spectrum's slope.
        attack: Factor of the voice's attack time.
        detune: Distance between two players of the same note, in cents; 0 is one player.
        vibrato: Factor of the voice's vibrato depth.
        vibrato_rate: Hz.
        breath: Factor of the voice's noise.
        motion_rate: Speed of the motion between the two spectra, in Hz.
        tremolo: Depth of the part's amplitude modulation, from 0 to 0.6.
    """

    brightness: float = 0.0
    attack: float = 1.0
    detune: float = 0.0
    vibrato: float = 1.0
    vibrato_rate: float = 5.5
    breath: float = 1.0
    motion_rate: float = 1.0
    tremolo: float = 0.0


def _slope(exponent: float, count: int = 32, odd_only: bool = False) -> tuple[float, ...]:
    return tuple(0.0 if odd_only and h % 2 == 0 else h**-exponent for h in range(1, count + 1))


def _plucked(exponent: float, position: float, count: int = 32) -> tuple[float, ...]:
    """Harmonics of a string that is plucked at a share ``position`` of its length."""
    return tuple(abs(np.sin(np.pi * h * position)) * h**-exponent + 0.002 for h in range(1, count + 1))


VOICES: dict[str, Voice] = {
    "flute": Voice((1.0, 0.35, 0.12, 0.04, 0.02), attack=0.05, vibrato=0.15, breath=0.16, motion="bloom"),
    "clarinet": Voice((1.0, 0.04, 0.6, 0.06, 0.4, 0.06, 0.25, 0.04, 0.12), attack=0.03, breath=0.03, motion="bloom"),
    "oboe": Voice((0.5, 0.8, 1.0, 0.6, 0.3, 0.3, 0.2, 0.1, 0.1), attack=0.03, vibrato=0.12, motion="bloom"),
    "saxophone": Voice((1.0, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.08), attack=0.04, vibrato=0.2, breath=0.09,
                       motion="bloom"),
    "violin": Voice(_slope(1.0), attack=0.08, vibrato=0.3, breath=0.02, motion="bloom"),
    "cello": Voice(_slope(1.25), attack=0.1, vibrato=0.25, breath=0.02, motion="bloom"),
    "string section": Voice(_slope(1.15, 24), attack=0.2, vibrato=0.2, breath=0.02, motion="sweep"),
    "accordion": Voice((1.0, 0.8, 0.7, 0.6, 0.25, 0.4, 0.12, 0.25, 0.1, 0.1), attack=0.04, vibrato=0.08),
    "harmonica": Voice((0.8, 1.0, 0.9, 0.5, 0.5, 0.25, 0.2, 0.1), attack=0.03, vibrato=0.25, breath=0.06),
    "organ": Voice((1.0, 0.9, 0.5, 0.7, 0.0, 0.3, 0.0, 0.5), attack=0.008, motion="sweep"),
    "choir": Voice((1.0, 0.5, 0.6, 0.5, 0.1, 0.05, 0.1, 0.12), attack=0.2, vibrato=0.25, breath=0.09, motion="sweep"),
    "pad": Voice(_slope(1.6, 16), attack=0.3, vibrato=0.08, motion="sweep"),
    "saw synth": Voice(_slope(1.0, 40), attack=0.006, motion="fade"),
    "square synth": Voice(_slope(1.0, 40, odd_only=True), attack=0.003),
    "triangle synth": Voice(_slope(2.0, 15, odd_only=True), attack=0.003),
    "wobble synth": Voice(_slope(0.9, 40), attack=0.006, motion="sweep"),
    "distorted guitar": Voice(_plucked(0.7, 0.13), attack=0.004, decay=0.4, motion="fade", drive=6.0),
    "clean electric guitar": Voice(_plucked(0.9, 0.21), attack=0.003, decay=1.6, motion="fade"),
    "guitar": Voice(_plucked(1.0, 0.17), attack=0.003, decay=2.4, motion="fade"),
    "banjo": Voice(_plucked(0.55, 0.11), attack=0.002, decay=5.0, motion="fade"),
    "harp": Voice(_plucked(1.3, 0.4), attack=0.004, decay=1.6, motion="fade"),
    "piano": Voice(_plucked(1.1, 0.12), attack=0.003, decay=1.9, motion="fade"),
    "harpsichord": Voice(_plucked(0.45, 0.23), attack=0.002, decay=3.2, motion="fade"),
    "trumpet": Voice((0.7, 1.0, 0.9, 0.8, 0.6, 0.45, 0.3, 0.2, 0.15, 0.1), attack=0.03, vibrato=0.1, motion="bloom"),
    "trombone": Voice((1.0, 0.9, 0.7, 0.5, 0.35, 0.2, 0.12, 0.08), attack=0.05, vibrato=0.12, motion="bloom"),
    "brass section": Voice(_slope(0.9, 16), attack=0.06, motion="bloom"),
    "electric piano": Voice((1.0, 0.28, 0.07, 0.03, 0.02, 0.012, 0.07), attack=0.003, decay=1.7, motion="fade"),
    "bell": Voice((1.0, 0.7, 0.5, 0.45, 0.3), (0.5, 1.0, 1.19, 2.0, 2.74), attack=0.002, decay=1.3),
    "music box": Voice((1.0, 0.35, 0.18), (1.0, 2.98, 6.1), attack=0.002, decay=2.6),
    "vibraphone": Voice((1.0, 0.3, 0.07), (1.0, 3.98, 9.3), attack=0.004, decay=1.1),
    "marimba": Voice((1.0, 0.35, 0.1), (1.0, 3.93, 9.6), attack=0.003, decay=5.5),
    "steel drum": Voice((1.0, 0.7, 0.4, 0.2), (1.0, 2.0, 3.01, 4.12), attack=0.005, decay=2.8),
    "bass guitar": Voice(_plucked(1.2, 0.16, 20), attack=0.004, decay=1.6, motion="fade"),
    "upright bass": Voice(_plucked(1.6, 0.3, 14), attack=0.008, decay=2.6, motion="fade"),
    "sine bass": Voice((1.0, 0.08), attack=0.02),
    "synth bass": Voice(_slope(1.1, 20), attack=0.004, decay=2.5, motion="fade"),
    "acid bass": Voice(_slope(0.9, 30), attack=0.004, decay=1.5, motion="sweep"),
    "tuba": Voice((1.0, 0.7, 0.35, 0.18, 0.08), attack=0.04, motion="bloom"),
}  # fmt: skip


def frequency(midi: float) -> float:
    """Returns the frequency in Hz of a MIDI pitch: 440 · 2^((midi − 69)/12)."""
    return 440.0 * 2.0 ** ((midi - 69) / 12)


def note(voice: Voice, tone: Tone, midi: float, seconds: float, noise_start: int = 0) -> np.ndarray:
    """Renders one note with its release, float32 (samples,), with unit loudness (RMS) while it sounds fully.

    Args:
        voice: Centre values of the timbre.
        tone: Values of the piece.
        midi: MIDI pitch; may be fractional.
        seconds: Length before the release; cut at ``LONGEST_NOTE``.
        noise_start: Where to start in the noise of the breath, so that notes differ.
    """
    held = min(int(seconds * SAMPLE_RATE), int(LONGEST_NOTE * SAMPLE_RATE))
    release = int(RELEASE_SECONDS * SAMPLE_RATE)
    t = _TIMES[: held + release]
    hertz = frequency(midi)
    sound = _partials(voice, tone, hertz, t) if voice.ratios else _harmonics(voice, tone, hertz, t)
    breath = voice.breath * tone.breath
    if breath:
        sound += np.float32(breath) * _breath_noise()[noise_start % SAMPLE_RATE :][: t.size]
    attack = max(16, int(voice.attack * tone.attack * SAMPLE_RATE))
    sound[:attack] *= _ramp(attack)[: t.size]
    if voice.decay:
        sound *= _slow(np.exp(-voice.decay * t[::_CONTROL]), t.size)
    sound[held:] *= _ramp(release)[::-1][: t.size - held]
    return sound


def _harmonics(voice: Voice, tone: Tone, hertz: float, t: np.ndarray) -> np.ndarray:
    bright, dull = _tables(voice, round(tone.brightness * 8), min(40, max(1, int(HIGHEST_PARTIAL / hertz))))
    phase = hertz * t
    if voice.vibrato:
        # A vibrato of d semitones at r Hz moves the phase by up to f·(2^(d/12) − 1)/r/(2π) cycles; it fades in.
        depth = hertz * (2.0 ** (voice.vibrato * tone.vibrato / 12) - 1) / tone.vibrato_rate / (2 * np.pi)
        slow = t[::_CONTROL]
        phase = phase + _slow(
            depth * np.minimum(slow / 0.35, 1.0) * np.sin(2 * np.pi * tone.vibrato_rate * slow), t.size
        )
    sound = _read(bright, dull, phase, _motion(voice, tone, t))
    if tone.detune:
        shift = 2.0 ** (tone.detune / 1200)
        sound = np.float32(0.7071) * (sound + _read(bright, dull, phase * shift + 0.37, _motion(voice, tone, t)))
    return sound


def _read(bright: np.ndarray, dull: np.ndarray, phase: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    index = (phase * _TABLE).astype(np.int32) & (_TABLE - 1)
    sound = dull[index]
    if weight is not None:
        sound += weight * (bright[index] - sound)
    return sound


def _motion(voice: Voice, tone: Tone, t: np.ndarray) -> np.ndarray | None:
    """Returns the weight of the bright spectrum over time, float32 (samples,)."""
    slow = t[::_CONTROL]
    if voice.motion == "fade":
        return _slow(np.exp(-4.0 * tone.motion_rate * slow), t.size)
    if voice.motion == "bloom":
        return _slow(1.0 - np.exp(-9.0 * tone.motion_rate * slow), t.size)
    if voice.motion == "sweep":
        return _slow(0.5 - 0.5 * np.cos(2 * np.pi * tone.motion_rate * slow), t.size)
    return None


def _partials(voice: Voice, tone: Tone, hertz: float, t: np.ndarray) -> np.ndarray:
    """Sums decaying sine partials; higher ones decay faster, and a brighter tone has more of them."""
    table, sound, power = _sine(), np.zeros(t.size, np.float32), 0.0
    for amplitude, ratio in zip(voice.partials, voice.ratios, strict=True):
        if ratio * hertz > HIGHEST_PARTIAL:
            continue
        gain = amplitude * max(ratio, 1.0) ** (0.7 * tone.brightness)
        power += gain**2 / 2
        index = (ratio * hertz * t * _TABLE).astype(np.int32) & (_TABLE - 1)
        sound += _slow(gain * np.exp(-(ratio - 1.0) * tone.motion_rate * t[::_CONTROL]), t.size) * table[index]
    return sound / np.float32(max(power, 1e-6) ** 0.5)


@lru_cache(maxsize=4000)
def _tables(voice: Voice, brightness: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one period of the bright and of the dull spectrum, each with unit loudness.

    Brightness is in eighths: a step changes the slope by 0.6 dB an octave, which nobody can tell from a continuum.
    """
    h = np.arange(1, min(count, len(voice.partials)) + 1)
    amplitudes = np.asarray(voice.partials[: h.size]) * h ** (0.8 * brightness / 8)
    dull = amplitudes * h**-0.9 if voice.motion != "still" else amplitudes
    # Fixed pseudo-random phases keep the crest factor low; the same ones in both tables, so that a mix does not cancel.
    phases = np.exp(2j * np.pi * (h * 0.618 % 1.0))
    return _period(amplitudes * phases), _period(dull * phases)


def _period(harmonics: np.ndarray) -> np.ndarray:
    spectrum = np.zeros(_TABLE // 2 + 1, complex)
    spectrum[1 : harmonics.size + 1] = harmonics
    wave = np.fft.irfft(spectrum)
    return (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


@lru_cache(maxsize=1)
def _sine() -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(_TABLE) / _TABLE).astype(np.float32)


@lru_cache(maxsize=1)
def _breath_noise() -> np.ndarray:
    """White noise, softened, that is longer than the longest note from any start within its first second."""
    white = np.random.default_rng(7).standard_normal(int((LONGEST_NOTE + 1.2) * SAMPLE_RATE))
    return (np.convolve(white, [0.25, 0.5, 0.25], "same") / 0.61).astype(np.float32)


@lru_cache(maxsize=256)
def _ramp(samples: int) -> np.ndarray:
    return np.linspace(0.0, 1.0, samples, dtype=np.float32)


def _slow(values: np.ndarray, size: int) -> np.ndarray:
    """Stretches a control curve with one value every ``_CONTROL`` samples to ``size`` samples."""
    return np.repeat(values.astype(np.float32), _CONTROL)[:size]
