"""Audio files for tests; their samples identify the recording and the position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
SUBTYPES = {
    ".wav": "PCM_24",
    ".aiff": "PCM_24",
    ".flac": "PCM_24",
    ".ogg": "VORBIS",
    ".mp3": "MPEG_LAYER_III",
    ".opus": "OPUS",
}


def sound(number: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """Returns a glide whose first pitch rises with ``number``: ``(samples,)`` in [−0.5, 0.5]."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (200 + 40 * number + 60 * time) * time)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Writes ``(samples,)`` or ``(samples, channels)`` in the format of the file's ending; creates the folder.

    Samples that are not finite are written as floating-point WAV, whose header contains the time of writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    audio_format = "OGG" if path.suffix == ".opus" else None
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    subtype = SUBTYPES[path.suffix] if np.isfinite(samples).all() else "FLOAT"
    with soundfile.SoundFile(path, "w", rate, channels, subtype, format=audio_format) as file:
        for start in range(0, len(samples), 4096):  # libsndfile's Vorbis encoder overflows its stack on long blocks
            file.write(samples[start : start + 4096])
    return path


def headerless_mp3(path: Path, seconds: float = 6.0) -> tuple[Path, int]:
    """Writes an MP3 file whose length is only an estimate, which is too long; returns it and its number of samples.

    Without the first frames, which hold the header and the loud start, the next one has less bytes than the mean.
    """
    audio = np.random.default_rng(0).standard_normal(round(44_100 * seconds))
    audio[: 44_100 // 2] *= 1e-3
    write(path, 0.1 * audio, 44_100)
    data, sizes = path.read_bytes(), []
    rates = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    while (start := sum(sizes)) + 4 < len(data):
        sizes.append(144_000 * rates[data[start + 2] >> 4] // 44_100 + (data[start + 2] >> 1 & 1))
    path.write_bytes(data[sum(sizes[:3]) :])
    return path, 1152 * (len(sizes) - 3)


def cut(path: Path, share: float) -> Path:
    """Cuts the file to the first ``share`` of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def library(folder: Path, count: int, seconds: float = 1.0, ending: str = ".wav") -> Path:
    """Writes ``count`` different recordings to two subfolders of ``folder``."""
    for number in range(count):
        write(folder / "ab"[number % 2] / f"{number:03d}{ending}", sound(number, seconds))
    return folder
