"""Writes audio as WAV or FLAC, encodes it for web pages, and draws log-mel spectrograms."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import librosa
import numpy as np
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

HOP_SECONDS = 0.01
WINDOW_SECONDS = 0.064
MEL_BINS = 128
FLOOR_DB = -80.0
MP3_RATES = frozenset({8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000})


def write_audio(path: str | Path, audio: Tensor | np.ndarray, sample_rate: int) -> None:
    """Writes a clip as 16-bit PCM, clipped to [-1, 1]. Creates the folder if needed.

    Args:
        path: File to write. Its suffix selects the format, .wav or .flac.
        audio: One clip, ``(samples,)`` or ``(1 or 2 channels, samples)``.
        sample_rate: Sample rate in Hz.

    Raises:
        ValueError: If the audio is not one clip, is empty, or is not finite.
    """
    if audio.ndim == 2 and len(audio) not in (1, 2):
        raise ValueError(f"audio has shape {tuple(audio.shape)}: expected one clip, mono or stereo.")
    samples = np.stack([_samples(one) for one in audio], axis=1) if audio.ndim == 2 else _samples(audio)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.clip(-1.0, 1.0), sample_rate, subtype="PCM_16")


def encode_for_web(path: str | Path) -> tuple[str, bytes]:
    """Encodes an audio file as MP3 at the library's default bit rate, about a quarter of the size of a FLAC.

    The length stays the same. A file whose sample rate MP3 does not support is not encoded.

    Args:
        path: Audio file.

    Returns:
        MIME type and bytes.
    """
    path = Path(path)
    audio, sample_rate = soundfile.read(path, dtype="float32")
    if sample_rate not in MP3_RATES:
        return f"audio/{path.suffix.removeprefix('.').lower()}", path.read_bytes()
    encoded = io.BytesIO()
    soundfile.write(encoded, audio, sample_rate, format="MP3")
    return "audio/mpeg", encoded.getvalue()


def log_mel(audio: Tensor | np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns mel power in dB relative to a power of 1, ``(MEL_BINS, frames)``; the lowest power is 1e-10."""
    hop, window = round(HOP_SECONDS * sample_rate), round(WINDOW_SECONDS * sample_rate)
    n_fft = max(2048, window)
    power = librosa.feature.melspectrogram(
        y=_samples(audio), sr=sample_rate, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=MEL_BINS
    )
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)


def spectrogram_figure(clips: Sequence[Tensor | np.ndarray], sample_rate: int, titles: Sequence[str]) -> Figure:
    """Draws one log-mel panel for each clip, one below the other, on one colour scale from the loudest point to −80 dB.

    Args:
        clips: Mono clips, ``(samples,)`` each.
        sample_rate: Sample rate of all clips in Hz.
        titles: Title of each panel, one line.

    Raises:
        ValueError: If there is no clip, or not one title for each.
    """
    if len(clips) == 0 or len(clips) != len(titles):
        raise ValueError(
            f"{len(clips)} clips with {len(titles)} titles: expected at least one clip, and one title for each clip."
        )
    mels = [log_mel(clip, sample_rate) for clip in clips]
    loudest = max(mel.max() for mel in mels)
    figure = Figure(figsize=(9.0, 0.6 + 2.2 * len(clips)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(clips), 1, squeeze=False)[:, 0]
    for axes, mel, title in zip(rows, mels, titles, strict=True):
        image = axes.pcolormesh(
            *_edges(mel.shape[1], sample_rate), mel - loudest, vmin=FLOOR_DB, vmax=0.0, cmap="magma"
        )
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_ylabel("frequency (Hz)")
        _mel_axis(axes, sample_rate)
    rows[-1].set_xlabel("time (s)")
    figure.colorbar(image, ax=list(rows), label="mel power (dB from the loudest)", fraction=0.04)
    return figure


def spectrogram_png(
    path: str | Path, clips: Sequence[Tensor | np.ndarray], sample_rate: int, titles: Sequence[str]
) -> None:
    """Writes :func:`spectrogram_figure` to a PNG file. Creates its folder if needed."""
    figure = spectrogram_figure(clips, sample_rate, titles)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _samples(audio: Tensor | np.ndarray) -> np.ndarray:
    samples = audio.detach().float().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio, dtype=np.float32)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"audio has shape {samples.shape}: expected one mono clip (samples,).")
    if not np.isfinite(samples).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(samples))} samples of the audio are not finite.")
    return samples


def _edges(frames: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cell edges of the picture, in seconds and in mels. The axis is linear in mels, with labels in Hz."""
    hop_seconds = round(HOP_SECONDS * sample_rate) / sample_rate
    times = (np.arange(frames + 1) - 0.5) * hop_seconds
    return times, np.linspace(0.0, librosa.hz_to_mel(sample_rate / 2), MEL_BINS + 1)


def _mel_axis(axes, sample_rate: int) -> None:
    hertz = [hz for hz in (0, 250, 500, 1000, 2000, 4000, 8000, 16000) if hz <= sample_rate / 2]
    axes.set_yticks([librosa.hz_to_mel(hz) for hz in hertz], [str(hz) for hz in hertz])
    axes.set_xlim(left=0.0)
