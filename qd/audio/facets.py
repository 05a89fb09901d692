"""Musical facets of a clip by librosa: tempo, brightness, onset rate, loudness and chroma.

No model and no training uses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import librosa
import numpy as np
from scipy.signal import find_peaks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RATE = 16_000
"""Sample rate of the analysis in Hz, the same for all models: content above 8 kHz does not count."""
SILENCE = -80.0
"""Level in dB at and below which a clip is silent."""
HOP, WINDOW, MELS = 256, 1024, 40
"""Analysis frames for tempo, onsets and brightness: 16 ms apart, 64 ms long."""
CHROMA_HOP, CHROMA_WINDOW = 1024, 4096
"""Frames for chroma: a window of 256 ms distinguishes semitones down to about 100 Hz."""
ONSET_RANGE, ONSET_RISE = 50.0, 1.0
"""Levels of the mel bands count down to 50 dB below the loudest one. An onset raises their mean by 1 dB in a frame."""
ONSET_DISTANCE = 0.05
"""Least time between two onsets in seconds."""
LONGEST_BEAT = 3.0
"""Longest period of a pulse in seconds."""
PITCHES = 12


class Facets(NamedTuple):
    """Facets of one clip, or of a table of clips with the same leading axes in each field.

    Attributes:
        tempo: Tempo in beats a minute; 0 with fewer than 2 onsets. It may be double or half of what a listener taps.
        brightness: Centroid of the mean magnitude spectrum in Hz; 0 for silence.
        onset_rate: Number of onsets a second.
        loudness: Root mean square in dB relative to full scale, at least :data:`SILENCE`.
        chroma: Mean energy of each pitch class, C first, at unit length, ``(…, 12)``; zeros for silence. Pitch is
            absolute, relative to A = 440 Hz, so the same music in two keys has different chroma.
    """

    tempo: ArrayLike
    brightness: ArrayLike
    onset_rate: ArrayLike
    loudness: ArrayLike
    chroma: ArrayLike


def clip_facets(audio: NDArray[np.floating]) -> Facets:
    """Returns the facets of a clip, in about 10 ms for 4 s on one core.

    A constant offset is inaudible and is removed first, so a constant signal is silence.

    Args:
        audio: Finite samples in [−1, 1] at :data:`RATE`, ``(samples,)``, samples ≥ 1.

    Raises:
        ValueError: The shape is not one-dimensional, there are no samples, or a sample is not finite.
    """
    audio = np.asarray(audio, dtype=np.float32)
    if audio.ndim != 1 or not audio.size or not np.isfinite(audio).all():
        raise ValueError(f"audio has shape {audio.shape}: expected (samples,), one sample or more, all of them finite.")
    audio = audio - audio.mean()
    power = float(np.square(audio, dtype=np.float64).mean())
    loudness = max(10 * np.log10(max(power, 1e-20)), SILENCE)
    if loudness == SILENCE:
        return Facets(0.0, 0.0, 0.0, SILENCE, np.zeros(PITCHES, dtype=np.float32))
    seconds = len(audio) / RATE
    audio = np.pad(audio, (0, max(0, CHROMA_WINDOW - len(audio))))
    magnitudes = _magnitudes(audio, WINDOW, HOP)
    rises = _rises(magnitudes)
    onsets = _onsets(rises)
    return Facets(
        tempo=_tempo(rises) if onsets > 1 else 0.0,
        brightness=_centroid(magnitudes),
        onset_rate=onsets / seconds,
        loudness=float(loudness),
        chroma=_chroma(audio),
    )


def _magnitudes(audio: NDArray, window: int, hop: int) -> NDArray:
    return np.abs(librosa.stft(audio, n_fft=window, hop_length=hop))


def _rises(magnitudes: NDArray) -> NDArray:
    """Mean rise of the mel bands since the frame before, in dB, ``(frames,)``."""
    mel = librosa.feature.melspectrogram(S=magnitudes**2, sr=RATE, n_mels=MELS)
    levels = librosa.power_to_db(mel, ref=np.max, top_db=ONSET_RANGE)
    return librosa.onset.onset_strength(S=levels, sr=RATE, hop_length=HOP)


def _onsets(rises: NDArray) -> int:
    # Not librosa.onset.onset_detect: its compiled peak picker crashes Python with some versions of numba.
    distance = round(ONSET_DISTANCE * RATE / HOP)
    peaks, _ = find_peaks(np.concatenate([[0.0], rises, [0.0]]), prominence=ONSET_RISE, distance=distance)
    return len(peaks)


def _tempo(rises: NDArray) -> float:
    """Tempo with the strongest autocorrelation, under librosa's prior around 120 beats a minute."""
    return float(librosa.feature.tempo(onset_envelope=rises, sr=RATE, hop_length=HOP, ac_size=LONGEST_BEAT)[0])


def _centroid(magnitudes: NDArray) -> float:
    return float(librosa.feature.spectral_centroid(S=magnitudes.mean(axis=1, keepdims=True), sr=RATE).item())


def _chroma(audio: NDArray) -> NDArray:
    power = _magnitudes(audio, CHROMA_WINDOW, CHROMA_HOP) ** 2
    energy = librosa.feature.chroma_stft(S=power, sr=RATE, n_fft=CHROMA_WINDOW, norm=None, tuning=0.0).mean(axis=1)
    return energy / max(np.linalg.norm(energy), np.finfo(np.float32).tiny)
