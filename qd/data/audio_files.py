"""Reads pairs of clips from audio files: decodes only the needed part, mixes it to mono and resamples it.

libsndfile reads WAV, AIFF, FLAC, OGG (Vorbis, Opus) and MP3, but version 1.2.2 does not always seek exactly. In Vorbis
files only the first seek after opening is exact (libsndfile issue 885), so each clip reopens its file. After a seek in
an MP3 file up to 0.35 s are garbage, because a frame can use bits of earlier frames, so decoding begins earlier. With
both measures, a clip equals the same samples of the whole decoded file.
The length of an MP3 file without a Xing or Info header is only an estimate from the rate of its first frame. If the
estimate is too long, the end is searched; that such a file was cut cannot be known.
Two limitations remain. If that estimate is too short, the rest of the file is not used. And mpg123 itself prints
warnings about damaged MP3 files to stderr.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from qd.runs.git_lfs import is_lfs_pointer

ENDINGS = (".aif", ".aifc", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
SILENCE = 1e-3
"""Peak relative to full scale (−60 dB); a clip that stays below is silent."""
DRAWS = 5
"""Number of position draws before a recording counts as silent, because a recording may contain a pause."""
MARGIN_SECONDS = 0.02
"""Extra audio on both sides of a resampled clip, so that the filter does not see the cut."""
HIGHEST_PEAK = 16.0
"""Highest plausible sample of a floating-point file, 24 dB above full scale; 16-bit integers reach 32,768."""
MP3_LEAD_SECONDS = 0.5
TAIL_SECONDS = 0.5
UNKNOWN_SIZE = 0x7FFF_0000
"""WAV and AIFF headers with a larger size come from writers that did not know the length yet."""


class BadAudioError(ValueError):
    """A recording that cannot be used.

    Args:
        cause: ``unreadable``, ``too short``, ``truncated``, ``corrupt``, ``wrong scale`` or ``silent``.
        detail: Explanation for the user.
    """

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(cause, detail)
        self.cause, self.detail = cause, detail

    def __str__(self) -> str:
        return f"{self.cause}: {self.detail}"


class ClipShape(NamedTuple):
    """Length and sample rate of every clip."""

    samples: int
    sample_rate: int

    def frames(self, source_rate: int) -> int:
        """Returns the number of frames that a clip needs from a file of ``source_rate`` Hz."""
        return math.ceil(self.samples * source_rate / self.sample_rate)


def check(source: Path | bytes, shape: ClipShape) -> None:
    """Checks a file's header and end, without decoding the rest.

    Raises:
        BadAudioError: The file cannot be opened, is too short for two clips, or is shorter than its header states.
    """
    with _opened(source) as file:
        _check_end(file, source)
        _slack(file, _length(file, source), shape)


def read_pair(source: Path | bytes, shape: ClipShape, generator: np.random.Generator) -> np.ndarray:
    """Reads two clips of one file that do not overlap, in random order: ``(2, samples)`` float32, mono.

    Args:
        source: Path of the file, or all its bytes.
        shape: Shape of a clip. Files of any sample rate and number of channels are converted.
        generator: Draws the positions, uniformly over all valid ones.

    Raises:
        BadAudioError: The file cannot be used.
    """
    with _opened(source) as file:
        slack, length = _slack(file, _length(file, source), shape), shape.frames(file.samplerate)
    for _ in range(DRAWS):
        starts = np.sort(generator.integers(0, slack, 2, endpoint=True)) + (0, length)
        pair = np.stack([_read_clip(source, int(start), shape) for start in generator.permutation(starts)])
        if (np.abs(pair).max(axis=1) >= SILENCE).all():
            return pair
    raise BadAudioError("silent", f"below {20 * math.log10(SILENCE):.0f} dB of full scale at {DRAWS} random positions")


def check_whole(source: Path | bytes) -> None:
    """Checks a file's header and end, without decoding the rest.

    Raises:
        BadAudioError: The file cannot be opened, contains no samples, or is shorter than its header states.
    """
    with _opened(source) as file:
        _check_end(file, source)
        if file.frames == 0:
            raise BadAudioError("too short", "it contains no samples")


def read_all(source: Path | bytes) -> tuple[np.ndarray, int]:
    """Reads a whole file: ``(samples,)`` float32, mono, and its sample rate in Hz.

    Raises:
        BadAudioError: The file cannot be used.
    """
    check_whole(source)
    with _opened(source) as file:
        length = _length(file, source)
    with _opened(source) as file:
        return _read_mono(file, 0, length, 0), file.samplerate


def _reason(source: Path | bytes, error: Exception) -> str:
    if not isinstance(source, bytes) and os.path.isfile(source):
        if not os.path.getsize(source):
            return "the file is empty"
        if is_lfs_pointer(Path(source)):
            return "it is a git-lfs pointer; run `git lfs pull` in its folder"
    return getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)


@contextmanager
def _opened(source: Path | bytes) -> Iterator[soundfile.SoundFile]:
    try:
        if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
            raise BadAudioError("unreadable", "it is a folder, a device or a pipe")  # opening a pipe may never end
        # As bytes, because a name need not be UTF-8.
        file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else os.fsencode(source))
    except (OSError, soundfile.SoundFileError) as error:
        raise BadAudioError("unreadable", _reason(source, error)) from error
    with file:
        yield file


def _slack(file: soundfile.SoundFile, length: int, shape: ClipShape) -> int:
    """Returns the number of frames left over after two clips."""
    slack = length - 2 * shape.frames(file.samplerate)
    if slack < 0:
        need = 2 * shape.samples / shape.sample_rate
        raise BadAudioError("too short", f"{length / file.samplerate:.2f} s long; two clips need {need:.2f} s")
    return slack


def _check_end(file: soundfile.SoundFile, source: Path | bytes) -> None:
    """Refuses a truncated file: libsndfile corrects the length of WAV, AIFF and OGG, but trusts FLAC and MP3."""
    if sizes := re.search(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE):
        promised, present = map(int, sizes.groups())
        if present < promised < UNKNOWN_SIZE:
            raise BadAudioError("truncated", f"only {present:,} of {promised:,} bytes are present")
    if file.format == "OGG" and not _has_last_page(source):
        raise BadAudioError(
            "truncated", f"the stream ends after {file.frames / file.samplerate:.2f} s without its last page"
        )
    if not _states_length(file, source):
        return
    tail = min(file.frames, math.ceil(TAIL_SECONDS * file.samplerate))
    try:
        file.seek(file.frames - tail)
        complete = len(file.read(tail, dtype="float32")) >= 0.5 * tail
    except soundfile.SoundFileError:
        complete = False
    if not complete:
        raise BadAudioError(
            "truncated", f"shorter than the {file.frames / file.samplerate:.2f} s that its header states"
        )


def _has_last_page(source: Path | bytes) -> bool:
    """Whether the final page of an OGG file (at most 65,307 bytes) is marked as the last one."""
    end = _bytes(source, -(1 << 17), 1 << 17)
    page = end.rfind(b"OggS")
    return page >= 0 and len(end) > page + 5 and bool(end[page + 5] & 4)


def _states_length(file: soundfile.SoundFile, source: Path | bytes) -> bool:
    """Whether a header states the length: in an MP3 file, a Xing or Info header in the first frame."""
    if file.format != "MP3":
        return True
    tag = _bytes(source, 0, 10)
    start = 10 + sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))
    begin = _bytes(source, start if tag.startswith(b"ID3") else 0, 1 << 12)
    frame = re.search(rb"\xff[\xe0-\xff].{0,48}", begin, re.DOTALL)
    return frame is not None and (b"Xing" in frame[0] or b"Info" in frame[0])


def _length(file: soundfile.SoundFile, source: Path | bytes) -> int:
    """Returns the number of frames. If it is only estimated, the end is searched with longer and longer tails."""
    if _states_length(file, source):
        return file.frames
    tail = math.ceil(TAIL_SECONDS * file.samplerate)
    while True:
        tail = min(tail, file.frames)
        try:
            start = file.seek(file.frames - tail)
            present = len(file.read(tail, dtype="float32"))
        except soundfile.SoundFileError as error:
            raise BadAudioError("corrupt", f"its end: {getattr(error, 'error_string', error)}") from error
        if present or tail == file.frames:
            return start + present
        tail *= 2


def _bytes(source: Path | bytes, start: int, count: int) -> bytes:
    """Returns up to ``count`` bytes from ``start`` on; a negative start counts from the end."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(start if start >= 0 else max(0, size + start))
        return file.read(count)


def _read_clip(source: Path | bytes, start: int, shape: ClipShape) -> np.ndarray:
    """Reads ``(samples,)`` float32 from frame ``start`` on."""
    with _opened(source) as file:
        rate, length = file.samplerate, shape.frames(file.samplerate)
        margin = 0 if rate == shape.sample_rate else math.ceil(MARGIN_SECONDS * rate)
        before = min(margin, start)
        clip = _read_mono(file, start - before, before + length, margin)
    if margin:
        clip = soxr.resample(clip, rate, shape.sample_rate)[round(before * shape.sample_rate / rate) :]
    clip = clip[: shape.samples]
    return np.pad(clip, (0, shape.samples - len(clip)))  # at the end of a file one sample can be missing


def _read_mono(file: soundfile.SoundFile, start: int, frames: int, more: int) -> np.ndarray:
    """Reads the mean over channels of ``frames`` frames, plus up to ``more`` frames if the file has them."""
    where = f"at {start / file.samplerate:.2f} s"
    lead = min(start, math.ceil(MP3_LEAD_SECONDS * file.samplerate)) if file.format == "MP3" else 0
    try:
        position = file.seek(start - lead)
        audio = file.read(lead + frames + more, dtype="float32", always_2d=True)[lead:]
    except soundfile.SoundFileError as error:
        raise BadAudioError("corrupt", f"{where}: {getattr(error, 'error_string', error)}") from error
    if position != start - lead:  # a damaged OGG file
        raise BadAudioError("corrupt", f"{where}: the decoder cannot seek to that position")
    if len(audio) < frames:
        raise BadAudioError("truncated", f"{where}: {len(audio):,} of {frames:,} frames can be decoded")
    if not np.isfinite(audio).all():
        raise BadAudioError("corrupt", f"{where}: some samples are not finite")
    if file.subtype in ("FLOAT", "DOUBLE") and (peak := np.abs(audio).max(initial=0.0)) > HIGHEST_PEAK:
        raise BadAudioError(
            "wrong scale", f"{where}: a sample of {peak:,.0f}; expected floating-point samples from −1 to 1"
        )
    return audio.mean(axis=1)
