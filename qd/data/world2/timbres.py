"""Timbres: the centre values of every instrument's voice. A row of data for each, no code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
        formants: Resonances of the instrument's body as (Hz, dB), each half an octave wide; they stay where they are
            when the pitch changes, and so tell instruments apart.
    """

    partials: tuple[float, ...]
    ratios: tuple[float, ...] = ()
    attack: float = 0.01
    decay: float = 0.0
    motion: str = "still"
    vibrato: float = 0.0
    breath: float = 0.0
    drive: float = 0.0
    formants: tuple[tuple[float, float], ...] = ()


def _slope(exponent: float, count: int = 32, odd_only: bool = False) -> tuple[float, ...]:
    return tuple(0.0 if odd_only and h % 2 == 0 else h**-exponent for h in range(1, count + 1))


def _plucked(exponent: float, position: float, count: int = 32) -> tuple[float, ...]:
    """Harmonics of a string that is plucked at a share ``position`` of its length."""
    return tuple(abs(np.sin(np.pi * h * position)) * h**-exponent + 0.002 for h in range(1, count + 1))


VOICES: dict[str, Voice] = {
    "flute": Voice((1.0, 0.35, 0.12, 0.04, 0.02), attack=0.05, vibrato=0.15, breath=0.16, motion="bloom",
        formants=((700.0, 6.0), (2_600.0, -8.0))),
    "clarinet": Voice((1.0, 0.04, 0.6, 0.06, 0.4, 0.06, 0.25, 0.04, 0.12), attack=0.03, breath=0.03, motion="bloom",
        formants=((450.0, 4.0), (1_600.0, 9.0))),
    "oboe": Voice((0.5, 0.8, 1.0, 0.6, 0.3, 0.3, 0.2, 0.1, 0.1), attack=0.03, vibrato=0.12, motion="bloom",
        formants=((1_050.0, 14.0), (2_900.0, 10.0))),
    "saxophone": Voice((1.0, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.08), attack=0.04, vibrato=0.2, breath=0.09,
                       motion="bloom",
        formants=((500.0, 8.0), (1_250.0, 8.0), (3_400.0, 8.0))),
    "violin": Voice(_slope(1.0), attack=0.08, vibrato=0.3, breath=0.02, motion="bloom",
        formants=((500.0, 6.0), (1_100.0, -6.0), (2_800.0, 12.0))),
    "cello": Voice(_slope(1.25), attack=0.1, vibrato=0.25, breath=0.02, motion="bloom",
        formants=((250.0, 8.0), (650.0, 6.0), (1_500.0, -8.0))),
    "string section": Voice(_slope(1.15, 24), attack=0.2, vibrato=0.2, breath=0.02, motion="sweep",
        formants=((420.0, 4.0), (2_000.0, -6.0), (4_800.0, 8.0))),
    "accordion": Voice((1.0, 0.8, 0.7, 0.6, 0.25, 0.4, 0.12, 0.25, 0.1, 0.1), attack=0.04, vibrato=0.08,
        formants=((1_700.0, 9.0), (3_600.0, 9.0))),
    "harmonica": Voice((0.8, 1.0, 0.9, 0.5, 0.5, 0.25, 0.2, 0.1), attack=0.03, vibrato=0.25, breath=0.06,
        formants=((1_300.0, 10.0), (2_400.0, 10.0), (5_000.0, 6.0))),
    "organ": Voice((1.0, 0.9, 0.5, 0.7, 0.0, 0.3, 0.0, 0.5), attack=0.008, motion="sweep",
        formants=((350.0, 3.0), (3_000.0, -10.0))),
    "choir": Voice((1.0, 0.5, 0.6, 0.5, 0.1, 0.05, 0.1, 0.12), attack=0.2, vibrato=0.25, breath=0.09, motion="sweep",
        formants=((650.0, 12.0), (1_080.0, 10.0), (2_700.0, 8.0))),
    "pad": Voice(_slope(1.6, 16), attack=0.3, vibrato=0.08, motion="sweep",
        formants=((300.0, 6.0), (900.0, -6.0))),
    "saw synth": Voice(_slope(1.0, 40), attack=0.006, motion="fade",
        formants=((3_200.0, 6.0),)),
    "square synth": Voice(_slope(1.0, 40, odd_only=True), attack=0.003,
        formants=((5_200.0, 4.0),)),
    "triangle synth": Voice(_slope(2.0, 15, odd_only=True), attack=0.003),
    "wobble synth": Voice(_slope(0.9, 40), attack=0.006, motion="sweep",
        formants=((800.0, 14.0), (2_200.0, -8.0))),
    "distorted guitar": Voice(_plucked(0.7, 0.13), attack=0.004, decay=0.4, motion="fade", drive=6.0,
        formants=((900.0, 6.0), (2_600.0, 8.0))),
    "clean electric guitar": Voice(_plucked(0.9, 0.21), attack=0.003, decay=1.6, motion="fade",
        formants=((400.0, 5.0), (2_000.0, 9.0))),
    "guitar": Voice(_plucked(1.0, 0.17), attack=0.003, decay=2.4, motion="fade",
        formants=((110.0, 6.0), (220.0, 8.0), (3_800.0, 6.0))),
    "banjo": Voice(_plucked(0.55, 0.11), attack=0.002, decay=5.0, motion="fade",
        formants=((750.0, 12.0), (3_300.0, 12.0))),
    "harp": Voice(_plucked(1.3, 0.4), attack=0.004, decay=1.6, motion="fade",
        formants=((300.0, 6.0), (1_000.0, -6.0))),
    "piano": Voice(_plucked(1.1, 0.12), attack=0.003, decay=1.9, motion="fade",
        formants=((180.0, 4.0), (1_300.0, 5.0), (3_000.0, -6.0))),
    "harpsichord": Voice(_plucked(0.45, 0.23), attack=0.002, decay=3.2, motion="fade",
        formants=((2_500.0, 8.0), (5_500.0, 12.0))),
    "trumpet": Voice((0.7, 1.0, 0.9, 0.8, 0.6, 0.45, 0.3, 0.2, 0.15, 0.1), attack=0.03, vibrato=0.1, motion="bloom",
        formants=((1_250.0, 12.0), (2_500.0, 6.0))),
    "trombone": Voice((1.0, 0.9, 0.7, 0.5, 0.35, 0.2, 0.12, 0.08), attack=0.05, vibrato=0.12, motion="bloom",
        formants=((520.0, 10.0), (1_500.0, 3.0))),
    "brass section": Voice(_slope(0.9, 16), attack=0.06, motion="bloom",
        formants=((800.0, 8.0), (2_000.0, 8.0))),
    "electric piano": Voice((1.0, 0.28, 0.07, 0.03, 0.02, 0.012, 0.07), attack=0.003, decay=1.7, motion="fade",
        formants=((600.0, 4.0), (2_400.0, 10.0))),
    "bell": Voice((1.0, 0.7, 0.5, 0.45, 0.3), (0.5, 1.0, 1.19, 2.0, 2.74), attack=0.002, decay=1.3),
    "music box": Voice((1.0, 0.35, 0.18), (1.0, 2.98, 6.1), attack=0.002, decay=2.6),
    "vibraphone": Voice((1.0, 0.3, 0.07), (1.0, 3.98, 9.3), attack=0.004, decay=1.1),
    "marimba": Voice((1.0, 0.35, 0.1), (1.0, 3.93, 9.6), attack=0.003, decay=5.5),
    "steel drum": Voice((1.0, 0.7, 0.4, 0.2), (1.0, 2.0, 3.01, 4.12), attack=0.005, decay=2.8),
    "bass guitar": Voice(_plucked(1.2, 0.16, 20), attack=0.004, decay=1.6, motion="fade",
        formants=((90.0, 3.0), (700.0, 8.0))),
    "upright bass": Voice(_plucked(1.6, 0.3, 14), attack=0.008, decay=2.6, motion="fade",
        formants=((120.0, 6.0), (350.0, 4.0))),
    "sine bass": Voice((1.0, 0.08), attack=0.02),
    "synth bass": Voice(_slope(1.1, 20), attack=0.004, decay=2.5, motion="fade",
        formants=((500.0, 8.0),)),
    "acid bass": Voice(_slope(0.9, 30), attack=0.004, decay=1.5, motion="sweep",
        formants=((1_000.0, 14.0),)),
    "tuba": Voice((1.0, 0.7, 0.35, 0.18, 0.08), attack=0.04, motion="bloom",
        formants=((240.0, 8.0), (420.0, 4.0))),
}  # fmt: skip
