"""Clips and their altered versions, to measure what an embedding depends on besides the recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from scipy.signal import butter, sosfilt
from torch import Tensor

from qd.audio.filters import equalise, knots, reverberate
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
EQUALISER_DB, ROOM_SECONDS, ROOM_DB = 9.0, 0.6, -6.0
EQUALISER, ROOM = f"equaliser, ± {EQUALISER_DB:g} dB", f"room, {ROOM_SECONDS:g} s"
DRUMS_ADDED, DRUMS_REMOVED = "drums added", "drums removed"
OTHER_MODE = "minor for major"
ALTERATIONS = (
    *SNR_DB, *TEMPO, *PITCH, LOW_PASS, EQUALISER, ROOM, CODEC, DRUMS_ADDED, DRUMS_REMOVED, OTHER_MODE
)  # fmt: skip
"""All alterations, in the order of the report."""


class Altered(NamedTuple):
    """Clips and their altered versions, row by row, ``(clips, samples)`` each."""

    alteration: str
    original: Tensor | None
    """None means the first clips of the pairs in ``rows``."""
    changed: Tensor
    rows: Tensor | None
    """Indices of the clips' recordings in the batch, ``(clips,)``; None if a clip may overlap with its pair."""


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
    every = torch.arange(len(first))
    for name, snr_db in SNR_DB.items():
        yield Altered(name, None, add_noise(first, (snr_db, snr_db), generator), every)
    if batch.longer is not None:
        start, each = batch.longer[:, :samples], torch.ones(len(batch.longer))
        for name, rate in TEMPO.items():
            yield Altered(name, start, stretch(batch.longer, rate * each, samples), None)
    for name, semitones in PITCH.items():
        yield Altered(name, None, shift_pitch(first, torch.full(first.shape[:1], semitones), samples), every)
    yield Altered(LOW_PASS, None, low_pass(first, sample_rate), every)
    own = torch.Generator().manual_seed(generator.initial_seed())  # so that the drums are those of earlier reports
    yield Altered(EQUALISER, None, _equalise(first, sample_rate, own), every)
    yield Altered(ROOM, None, _in_a_room(first, sample_rate, own), every)
    yield Altered(CODEC, None, round_trip(first), every)
    yield from _drums(batch, sample_rate, generator)
    if batch.other_mode is not None:
        yield Altered(OTHER_MODE, None, batch.other_mode, every)


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


def _equalise(audio: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Applies another gain curve to each clip, with gains drawn uniformly for each octave."""
    gain = 2 * torch.rand(len(audio), knots(sample_rate), generator=generator) - 1
    return equalise(audio, EQUALISER_DB * gain, sample_rate)


def _in_a_room(audio: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Adds another room of one reverberation time and level to each clip."""
    noise = torch.randn(len(audio), round(ROOM_SECONDS * sample_rate), generator=generator)
    seconds, level_db = (torch.full(audio.shape[:1], value) for value in (ROOM_SECONDS, ROOM_DB))
    return reverberate(audio, seconds, level_db, noise, sample_rate)


def _drums(batch: ClipBatch, sample_rate: int, generator: torch.Generator) -> Iterator[Altered]:
    first = batch.pairs[:, 0]
    every = torch.arange(len(first))
    if batch.drums is None:
        drums = draw_drums(drum_loops(sample_rate, first.device), *first.shape, generator)
        yield Altered(DRUMS_ADDED, None, layer_drums(first, drums, torch.full(first.shape[:1], DRUMS_DB)), every)
        return
    original, changed, added = batch.drums
    for name, chosen in ((DRUMS_ADDED, added), (DRUMS_REMOVED, ~added)):
        if chosen.any():
            yield Altered(name, original[chosen], changed[chosen], every[chosen])
