"""Changes of the sound to which an embedding should not react; on whole batches, on the device of the audio.

All randomness comes from an explicit generator, separately for each clip. Existing libraries do not fit:
audiomentations processes single clips on the CPU; torch-audiomentations cannot change the tempo, shifts pitch in a loop
over the batch and only to a few ratios, and uses the global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from qd.audio.filters import equalise, high_pass, knots, low_pass, reverberate
from qd.audio.phase_vocoder import change_tempo_and_pitch, pitch_ratio, samples_read, stretch
from qd.data.drum_loops import draw_drums, drum_loops
from qd.data.world.timbres import SAMPLE_RATE

SLOPES_DB = (12.0, 48.0)
"""Range of the slopes of low-pass and high-pass, in dB an octave, drawn uniformly on a logarithmic scale."""
QUIET = 1e-12
"""Root mean square below which drums count as absent and are not amplified."""


class AugmentationRanges(Protocol):
    """Inclusive range of each change; see :class:`Augmentation`."""

    snr_db_min: float
    snr_db_max: float
    gain_db_min: float
    gain_db_max: float
    tempo_min: float
    tempo_max: float
    pitch_semitones_min: float
    pitch_semitones_max: float
    drums_share: float
    drums_snr_db_min: float
    drums_snr_db_max: float
    room_share: float
    room_seconds_min: float
    room_seconds_max: float
    room_db_min: float
    room_db_max: float
    equaliser_share: float
    equaliser_db: float
    low_pass_share: float
    low_pass_hz_min: float
    low_pass_hz_max: float
    high_pass_share: float
    high_pass_hz_min: float
    high_pass_hz_max: float


def needed_samples(ranges: AugmentationRanges, samples_out: int) -> int:
    """Returns the number of input samples that ``samples_out`` output samples need in the worst case."""
    if not (_changes_tempo(ranges) or _changes_pitch(ranges)):
        return samples_out
    return samples_read(samples_out, ranges.tempo_max, 2 ** (ranges.pitch_semitones_min / 12))


class Augmentation:
    """Changes tempo, pitch, drums, room, equalisation, noise, bandwidth and gain, with separate draws for each clip.

    The order is that of a recording: the players, the room around them, the colour of the microphone, its noise, the
    band that the medium keeps, its level. So a low-pass removes the noise too, as in the file of a real recording.

    Tempo, cut-off frequencies and reverberation times are drawn uniformly on a logarithmic scale, so that twice and
    half as much are equally likely; pitch in semitones; everything else in decibels. The equaliser draws a gain within
    ``±equaliser_db`` for each octave. A setting ``…_share`` is the share of the clips of each batch that a change gets.

    Args:
        ranges: Ranges of the changes. A tempo of 1 to 1, a pitch of 0 to 0 and a share of 0 change no sample and draw
            no number.
        sample_rate: Sample rate of the audio in Hz.
        world: Edition of the built-in world, whose drums are added.
    """

    def __init__(self, ranges: AugmentationRanges, sample_rate: int = SAMPLE_RATE, world: int = 1) -> None:
        self.ranges = ranges
        self.sample_rate = sample_rate
        self.world = world

    def needed_samples(self, samples_out: int) -> int:
        """Returns :func:`needed_samples` for these ranges."""
        return needed_samples(self.ranges, samples_out)

    def __call__(self, audio: Tensor, samples_out: int, generator: torch.Generator) -> Tensor:
        """Returns the changed audio, ``(batch, samples_out)`` float32; silence stays silent.

        Args:
            audio: ``(batch, samples)`` float32, at least :meth:`needed_samples` long; the rest is not used.
            samples_out: Length of the output.
            generator: Random generator on the audio's device.

        Raises:
            ValueError: The audio is too short.
        """
        ranges, needed = self.ranges, self.needed_samples(samples_out)
        if audio.shape[1] < needed:
            raise ValueError(
                f"audio has {audio.shape[1]} samples; expected {needed} for {samples_out} after tempo and pitch: "
                "load longer clips (needed_samples), or narrow the ranges"
            )
        audio = self._play(audio[:, :needed], samples_out, generator)
        audio = _some(audio, ranges.drums_share, self._drums, generator)
        audio = _some(audio, ranges.room_share, self._room, generator)
        audio = _some(audio, ranges.equaliser_share, self._equaliser, generator)
        audio = add_noise(audio, (ranges.snr_db_min, ranges.snr_db_max), generator)
        audio = _some(audio, ranges.low_pass_share, self._low_pass, generator)
        audio = _some(audio, ranges.high_pass_share, self._high_pass, generator)
        return change_gain(audio, (ranges.gain_db_min, ranges.gain_db_max), generator)

    def _play(self, audio: Tensor, samples_out: int, generator: torch.Generator) -> Tensor:
        """Changes tempo and pitch: ``(batch, needed_samples)`` → ``(batch, samples_out)``."""
        ranges = self.ranges
        if not (_changes_tempo(ranges) or _changes_pitch(ranges)):
            return audio
        octaves = (math.log2(ranges.tempo_min), math.log2(ranges.tempo_max))
        tempo = 2.0 ** _uniform(audio, octaves, generator)[:, 0]
        if not _changes_pitch(ranges):
            return stretch(audio, tempo, samples_out)
        semitones = _uniform(audio, (ranges.pitch_semitones_min, ranges.pitch_semitones_max), generator)[:, 0]
        highest = 2 ** (ranges.pitch_semitones_max / 12)
        return change_tempo_and_pitch(audio, tempo, pitch_ratio(semitones), samples_out, highest)

    def _drums(self, music: Tensor, generator: torch.Generator) -> Tensor:
        drums = draw_drums(drum_loops(self.sample_rate, music.device, self.world), *music.shape, generator)
        snr_db = _uniform(music, (self.ranges.drums_snr_db_min, self.ranges.drums_snr_db_max), generator)[:, 0]
        return layer_drums(music, drums, snr_db)

    def _room(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        ranges = self.ranges
        seconds = _log_uniform(audio, (ranges.room_seconds_min, ranges.room_seconds_max), generator)
        level_db = _uniform(audio, (ranges.room_db_min, ranges.room_db_max), generator)[:, 0]
        taps = math.ceil(ranges.room_seconds_max * self.sample_rate)
        noise = torch.randn(len(audio), taps, generator=generator, device=audio.device)
        return reverberate(audio, seconds, level_db, noise, self.sample_rate)

    def _equaliser(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        shape = len(audio), knots(self.sample_rate)
        share = torch.rand(shape, generator=generator, device=audio.device)
        return equalise(audio, self.ranges.equaliser_db * (2 * share - 1), self.sample_rate)

    def _low_pass(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        hertz = _log_uniform(audio, (self.ranges.low_pass_hz_min, self.ranges.low_pass_hz_max), generator)
        return low_pass(audio, hertz, _log_uniform(audio, SLOPES_DB, generator), self.sample_rate)

    def _high_pass(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        hertz = _log_uniform(audio, (self.ranges.high_pass_hz_min, self.ranges.high_pass_hz_max), generator)
        return high_pass(audio, hertz, _log_uniform(audio, SLOPES_DB, generator), self.sample_rate)


def layer_drums(audio: Tensor, drums: Tensor, snr_db: Tensor) -> Tensor:
    """Adds drums to music at a given ratio of music to drums; silence stays silent.

    Args:
        audio: Music, ``(batch, samples)``.
        drums: Drums, ``(batch, samples)``.
        snr_db: Ratio of mean powers in dB, ``(batch,)``.

    Raises:
        ValueError: The shapes do not match.
    """
    if drums.shape != audio.shape or snr_db.shape != audio.shape[:1]:
        raise ValueError(
            f"drums of shape {tuple(drums.shape)} and ratios of shape {tuple(snr_db.shape)} for audio of shape "
            f"{tuple(audio.shape)}: expected drums of the audio's shape, and one ratio per clip"
        )
    gain = _level(audio) / _level(drums).clamp_min(QUIET)
    return audio + drums * gain * _amplitude(-snr_db[:, None])


def add_noise(audio: Tensor, snr_db: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Adds white noise at a signal-to-noise ratio drawn uniformly in decibels for each clip; silence stays silent.

    Args:
        audio: ``(batch, samples)``.
        snr_db: Lowest and highest ratio of mean powers in dB.
        generator: Random generator on the audio's device.
    """
    noise = torch.randn(audio.shape, generator=generator, device=audio.device)
    return audio + noise * _level(audio) * _amplitude(-_uniform(audio, snr_db, generator))


def change_gain(audio: Tensor, gain_db: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Multiplies each clip by a gain drawn uniformly in decibels; arguments as in :func:`add_noise`."""
    return audio * _amplitude(_uniform(audio, gain_db, generator))


def _some(
    audio: Tensor,
    share: float,
    change: Callable[[Tensor, torch.Generator], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Changes a random share of the clips; the others keep every bit."""
    count = round(share * len(audio))
    if count == 0:
        return audio
    chosen = torch.randperm(len(audio), generator=generator, device=audio.device)[:count]
    return audio.index_copy(0, chosen, change(audio[chosen], generator))


def _changes_tempo(ranges: AugmentationRanges) -> bool:
    return (ranges.tempo_min, ranges.tempo_max) != (1, 1)


def _changes_pitch(ranges: AugmentationRanges) -> bool:
    return (ranges.pitch_semitones_min, ranges.pitch_semitones_max) != (0, 0)


def _level(audio: Tensor) -> Tensor:
    """Returns the root mean square of each clip, ``(batch, 1)``."""
    return audio.square().mean(dim=1, keepdim=True).sqrt()


def _uniform(audio: Tensor, bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draws one number per clip, ``(batch, 1)``."""
    low, high = bounds
    return low + (high - low) * torch.rand(audio.shape[0], 1, generator=generator, device=audio.device)


def _log_uniform(audio: Tensor, bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draws one number per clip, ``(batch,)``, uniformly on a logarithmic scale."""
    low, high = bounds
    return _uniform(audio, (math.log(low), math.log(high)), generator)[:, 0].exp()


def _amplitude(decibels: Tensor) -> Tensor:
    return 10.0 ** (decibels / 20.0)
