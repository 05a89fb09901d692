"""Renders a window of a piece as mono float32 audio at 16 kHz."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft

from qd.data.world2.kits import HIT_SECONDS, hit
from qd.data.world2.piece import PARTS, Note, Piece, Room
from qd.data.world2.timbres import VOICES
from qd.data.world2.voices import RELEASE_SECONDS, SAMPLE_RATE, note

LOUDNESS = 0.12  # root mean square of every clip before the limiter
PRE_ROLL = 0.6  # seconds rendered before the window, so that it begins with the room's sound of earlier notes
ROOMS = 16


def render(piece: Piece, start: float = 0.0, seconds: float = 4.0) -> np.ndarray:
    """Renders the window [start, start + seconds) of ``piece``, float32 (samples,) in [−1, 1].

    Notes that began before the window continue in it. Every clip is scaled to the same loudness, so that loudness
    carries no information, and passes a tanh limiter.
    """
    lead_in = min(PRE_ROLL, start)
    first, samples = start - lead_in, round(seconds * SAMPLE_RATE)
    mix = np.zeros(samples + round(lead_in * SAMPLE_RATE), dtype=np.float32)
    end = first + mix.size / SAMPLE_RATE
    for part in PARTS:
        notes = [n for n in piece.notes if n.part == part and first - n.length - RELEASE_SECONDS < n.onset < end]
        mix += np.float32(piece.levels[part]) * _part(piece, part, notes, first, mix.size)
    if piece.kit:
        sounds = {drum: hit(drum, piece.kit) for drum in sorted({h.drum for h in piece.hits})}
        for h in piece.hits:
            if first - HIT_SECONDS < h.onset < end:
                _add(mix, sounds[h.drum], h.onset - first, h.velocity * piece.levels["drums"])
    return _limited(_in_room(mix, piece.room)[-samples:])


def _part(piece: Piece, part: str, notes: list[Note], first: float, size: int) -> np.ndarray:
    """Renders the notes of one part, with its distortion and tremolo, float32 (size,)."""
    voice, tone, bus = VOICES[piece.timbres[part]], piece.tones[part], np.zeros(size, dtype=np.float32)
    sounds: dict[tuple[int, int], np.ndarray] = {}
    for n in notes:
        key = (n.pitch, round(n.length * 1000))
        if key not in sounds:
            sounds[key] = note(voice, tone, n.pitch, n.length, noise_start=n.pitch * 331)
        _add(bus, sounds[key], n.onset - first, n.velocity)
    if voice.drive:
        bus = np.tanh(np.float32(voice.drive * (1.0 + 0.5 * tone.brightness)) * bus) * np.float32(0.8)
    if tone.tremolo:
        t = (first + np.arange(size) / SAMPLE_RATE).astype(np.float32)
        bus *= 1.0 - np.float32(tone.tremolo) * (0.5 + 0.5 * np.sin(np.float32(2 * np.pi * tone.vibrato_rate) * t))
    return bus


def _add(mix: np.ndarray, sound: np.ndarray, onset: float, gain: float) -> None:
    first = round(onset * SAMPLE_RATE)
    sound = sound[max(0, -first) :]
    first = max(0, first)
    sound = sound[: mix.size - first]
    mix[first : first + sound.size] += np.float32(gain) * sound


def _in_room(mix: np.ndarray, room: Room) -> np.ndarray:
    """Adds the echo, then the room and the spectral tilt in one product of spectra."""
    delay = round(room.echo_seconds * SAMPLE_RATE)
    if room.echo:
        for turn in (1, 2, 3):
            if turn * delay < mix.size:
                mix[turn * delay :] += np.float32(room.echo**turn) * mix[: -turn * delay]
    length = fft.next_fast_len(mix.size + _impulse(room.number).size, real=True)
    response, octaves = _response(room.number, length)
    gain = np.exp(np.float32(room.tilt * np.log(10.0) / 20.0) * octaves)
    spectrum = fft.rfft(mix, length) * ((1.0 + np.float32(room.level) * response) * gain)
    return fft.irfft(spectrum, length)[: mix.size]


@lru_cache(maxsize=ROOMS)
def _impulse(number: int) -> np.ndarray:
    """Returns a room's impulse response without the direct sound: decaying noise that loses its high frequencies."""
    rng = np.random.default_rng([23, number])
    seconds = 0.15 * 5.0 ** (number / (ROOMS - 1))  # reverberation time, 0.15 to 0.75 s
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(t.size) * np.exp(-6.9 * t / seconds) * np.minimum(t / 0.004, 1.0)
    softness = float(rng.uniform(0.2, 0.75))
    tail = np.convolve(tail, softness ** np.arange(24))[: t.size]
    return (tail / np.sqrt(np.sum(tail**2))).astype(np.float32)


@lru_cache(maxsize=4 * ROOMS)
def _response(number: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the room's spectrum, complex64 (bins,), and each bin's distance from 1 kHz in octaves."""
    hertz = np.maximum(np.arange(length // 2 + 1) * (SAMPLE_RATE / length), 40.0)
    return fft.rfft(_impulse(number), length).astype(np.complex64), np.log2(hertz / 1_000.0).astype(np.float32)


def _limited(mix: np.ndarray) -> np.ndarray:
    loudness = float(np.sqrt(np.mean(mix**2)))
    return np.tanh(mix * np.float32(LOUDNESS / max(loudness, 1e-6)), dtype=np.float32)
