"""Plays notes: a timbre's centre values, and a tone that moves them for one piece.

A harmonic voice reads two wavetables and moves between them while the note sounds: from bright to dull (plucked and
struck strings), from dull to bright (brass), or back and forth (pads). An inharmonic voice (bells, bars) adds decaying
sine partials. Every piece draws its own tone: brightness, attack, detuning, vibrato, breath and motion are continuous,
so that two pieces with the same instrument do not sound the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qd.data.world2.timbres import Voice

SAMPLE_RATE = 16_000
HIGHEST_PARTIAL = 7_400.0
"""Hz. Higher partials would alias."""

LONGEST_NOTE = 4.5  # seconds
RELEASE_SECONDS = 0.06
_TABLE = 4096  # samples of one period of a wavetable
_CONTROL = 32  # samples between two values of a slow control curve
_TIMES = np.arange(int((LONGEST_NOTE + RELEASE_SECONDS) * SAMPLE_RATE)) / SAMPLE_RATE


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


def frequency(midi: float) -> float:
    """Returns the frequency in Hz of a MIDI pitch: 440 · 2^((midi − 69)/12)."""
    return 440.0 * 2.0 ** ((midi - 69) / 12)


def note(voice: Voice, tone: Tone, midi: float, seconds: float, noise_start: int = 0) -> np.ndarray:
    """Renders one note with its release, float32 (samples,), with unit loudness (RMS) over its first half second.

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
        # The gain makes the mean power of the first half second the same as that of a held note.
        gain = np.sqrt(voice.decay / (1.0 - np.exp(-voice.decay)))
        sound *= _slow(gain * np.exp(-voice.decay * t[::_CONTROL]), t.size)
    sound[held:] *= _ramp(release)[::-1][: t.size - held]
    return sound


def _harmonics(voice: Voice, tone: Tone, hertz: float, t: np.ndarray) -> np.ndarray:
    bright, dull = _tables(voice, round(tone.brightness * 8), hertz)
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
        gain = amplitude * max(ratio, 1.0) ** (0.3 * tone.brightness)
        power += gain**2 / 2
        index = (ratio * hertz * t * _TABLE).astype(np.int32) & (_TABLE - 1)
        sound += _slow(gain * np.exp(-(ratio - 1.0) * tone.motion_rate * t[::_CONTROL]), t.size) * table[index]
    return sound / np.float32(max(power, 1e-6) ** 0.5)


@lru_cache(maxsize=2000)
def _tables(voice: Voice, brightness: int, hertz: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns one period of the bright and of the dull spectrum at a pitch, each with unit loudness.

    Brightness is in eighths: a step changes the slope by 0.2 dB an octave, which nobody can tell from a continuum.
    """
    count = max(1, min(len(voice.partials), int(HIGHEST_PARTIAL / hertz)))
    h = np.arange(1, count + 1)
    amplitudes = np.asarray(voice.partials[:count]) * h ** (0.25 * brightness / 8)
    for centre, gain in voice.formants:
        amplitudes = amplitudes * 10.0 ** (gain / 20.0 * np.exp(-0.5 * (np.log2(h * hertz / centre) / 0.35) ** 2))
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
