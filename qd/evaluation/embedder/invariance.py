"""Clips and their altered versions, to measure what an embedding depends on besides the recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from scipy.signal import butter, sosfilt
from torch import Tensor

from qd.audio.phase_vocoder import shift_pitch, stretch
from qd.audio.resample import resample
from qd.data.augmentation import add_noise, layer_drums
from qd.data.drum_loops import draw_drums, drum_loops
from qd.evaluation.embedder.heldout import DRUMS_DB, ClipBatch

TEMPO = {"tempo + 20 %": 1.2, "tempo − 20 %": 0.8}
PITCH = {"pitch + 3 semitones": 3.0, "pitch − 3 semitones": -3.0}
SNR_DB = {"noise, 20 dB": 20.0, "noise, 10 dB": 10.0}
LOW_PASS_HZ, LOW_PASS_ORDER = 2000.0, 8
LOW_PASS, CODEC = f"low-pass, {LOW_PASS_HZ / 1000:g} kHz", "codec round trip"
DRUMS_ADDED, DRUMS_REMOVED = "drums added", "drums removed"
ALTERATIONS = (*SNR_DB, *TEMPO, *PITCH, LOW_PASS, CODEC, DRUMS_ADDED, DRUMS_REMOVED)
"""All alterations, in the order of the report."""


class Altered(NamedTuple):
    """Clips and their altered versions, row by row, ``(clips, samples)`` each."""

    alteration: str
    original: Tensor | None
    """None means the first clip of each pair."""
    changed: Tensor


def alterations(
    batch: ClipBatch, sample_rate: int, round_trip: Callable[[Tensor], Tensor], generator: torch.Generator
) -> Iterator[Altered]:
    """Yields every alteration that the batch allows, of the first clip of each pair or of the batch's own clips for it.

    Args:
        batch: Clips, on the CPU.
        sample_rate: Sample rate of the batch, in Hz.
        round_trip: Encoding and decoding by a codec, at the same rate: ``(clips, samples)`` → the same shape.
        generator: Generator for the noise.
    """
    first, samples = batch.pairs[:, 0], batch.pairs.shape[2]
    for name, snr_db in SNR_DB.items():
        yield Altered(name, None, add_noise(first, (snr_db, snr_db), generator))
    if batch.longer is not None:
        start, each = batch.longer[:, :samples], torch.ones(len(batch.longer))
        for name, rate in TEMPO.items():
            yield Altered(name, start, stretch(batch.longer, rate * each, samples))
    for name, semitones in PITCH.items():
        yield Altered(name, None, shift_pitch(first, torch.full(first.shape[:1], semitones), samples))
    yield Altered(LOW_PASS, None, low_pass(first, sample_rate))
    yield Altered(CODEC, None, round_trip(first))
    yield from _drums(batch, sample_rate, generator)


def low_pass(audio: Tensor, sample_rate: int) -> Tensor:
    """Applies a Butterworth filter: −3 dB at 2 kHz, and 48 dB an octave above."""
    sections = butter(LOW_PASS_ORDER, LOW_PASS_HZ, fs=sample_rate, output="sos")
    return torch.from_numpy(sosfilt(sections, audio.numpy(), axis=-1)).float()


def codec_round_trip(
    codec: Callable[[Tensor], Tensor], codec_rate: int, sample_rate: int
) -> Callable[[Tensor], Tensor]:
    """Returns the round trip of a codec at another sample rate than its own: ``(clips, samples)`` → the same shape."""

    def round_trip(audio: Tensor) -> Tensor:
        decoded = codec(resample(audio, sample_rate, codec_rate))
        return resample(decoded, codec_rate, sample_rate)[:, : audio.shape[1]]

    return round_trip


def _drums(batch: ClipBatch, sample_rate: int, generator: torch.Generator) -> Iterator[Altered]:
    if batch.drums is None:
        first = batch.pairs[:, 0]
        drums = draw_drums(drum_loops(sample_rate, first.device), *first.shape, generator)
        yield Altered(DRUMS_ADDED, None, layer_drums(first, drums, torch.full(first.shape[:1], DRUMS_DB)))
        return
    original, changed, added = batch.drums
    for name, rows in ((DRUMS_ADDED, added), (DRUMS_REMOVED, ~added)):
        if rows.any():
            yield Altered(name, original[rows], changed[rows])
