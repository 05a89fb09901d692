"""Audio to files: WAV or FLAC, what a page can play, and pictures of log-mel spectrograms."""

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
    """Writes a clip, ``(samples,)`` or ``(1 or 2 channels, samples)``, as 16-bit PCM, clipped to [-1, 1], in the format
    that the name ends in (.wav or .flac); makes the folder if needed.

    Raises:
        ValueError: if the audio is not one clip, is empty, or is not finite.
    """
    if audio.ndim == 2 and len(audio) not in (1, 2):
        raise ValueError(f"audio must be one clip, mono or stereo, got shape {tuple(audio.shape)}.")
    samples = np.stack([_samples(one) for one in audio], axis=1) if audio.ndim == 2 else _samples(audio)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.clip(-1.0, 1.0), sample_rate, subtype="PCM_16")


def playable(path: str | Path) -> tuple[str, bytes]:
    """MIME type and bytes of an audio file, for a page that is sent: as MP3 of the library's usual rate, of equal
    length and about a quarter of the size of the FLAC; as it is where MP3 does not know the sample rate."""
    path = Path(path)
    audio, sample_rate = soundfile.read(path, dtype="float32")
    if sample_rate not in MP3_RATES:
        return f"audio/{path.suffix.removeprefix('.').lower()}", path.read_bytes()
    packed = io.BytesIO()
    soundfile.write(packed, audio, sample_rate, format="MP3")
    return "audio/mpeg", packed.getvalue()


def log_mel(audio: Tensor | np.ndarray, sample_rate: int) -> np.ndarray:
    """Mel power in dB, ``(MEL_BINS, frames)``, 0 dB being a power of 1; no lower than 1e-10."""
    hop, window = round(HOP_SECONDS * sample_rate), round(WINDOW_SECONDS * sample_rate)
    n_fft = max(2048, window)
    power = librosa.feature.melspectrogram(
        y=_samples(audio), sr=sample_rate, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=MEL_BINS
    )
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)


def spectrogram_figure(clips: Sequence[Tensor | np.ndarray], sample_rate: int, titles: Sequence[str]) -> Figure:
    """Draws one log-mel panel a clip, one below the other, on one colour scale: 80 dB from the loudest point.

    Args:
        clips: mono clips ``(samples,)``.
        sample_rate: of all clips, in Hz.
        titles: one line above each panel.

    Raises:
        ValueError: if there is no clip, or not one title for each.
    """
    if len(clips) == 0 or len(clips) != len(titles):
        raise ValueError(
            f"one title a clip and at least one clip expected, got {len(clips)} clips, {len(titles)} titles."
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
        axes.set_title(title, fontsize=9)
        axes.set_ylabel("frequency (Hz)")
        _mel_axis(axes, sample_rate)
    rows[-1].set_xlabel("time (s)")
    figure.colorbar(image, ax=list(rows), label="mel power (dB from the loudest)", fraction=0.04)
    return figure


def spectrogram_png(
    path: str | Path, clips: Sequence[Tensor | np.ndarray], sample_rate: int, titles: Sequence[str]
) -> None:
    """Writes :func:`spectrogram_figure` to a PNG file; makes its folder if needed."""
    figure = spectrogram_figure(clips, sample_rate, titles)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _samples(audio: Tensor | np.ndarray) -> np.ndarray:
    samples = audio.detach().float().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio, dtype=np.float32)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"audio must be one mono clip of shape (samples,), got shape {samples.shape}.")
    if not np.isfinite(samples).all():
        raise ValueError(f"audio must be finite, got {np.count_nonzero(~np.isfinite(samples))} samples that are not.")
    return samples


def _edges(frames: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell edges of the picture: seconds, and mels (the axis is linear in mels, its labels are in Hz)."""
    hop_seconds = round(HOP_SECONDS * sample_rate) / sample_rate
    times = (np.arange(frames + 1) - 0.5) * hop_seconds
    return times, np.linspace(0.0, librosa.hz_to_mel(sample_rate / 2), MEL_BINS + 1)


def _mel_axis(axes, sample_rate: int) -> None:
    hertz = [hz for hz in (0, 250, 500, 1000, 2000, 4000, 8000, 16000) if hz <= sample_rate / 2]
    axes.set_yticks([librosa.hz_to_mel(hz) for hz in hertz], [str(hz) for hz in hertz])
    axes.set_xlim(left=0.0)
