"""Baselines for the embedder report: MFCC statistics and CLAP. Both are embedders themselves."""

from __future__ import annotations

import math
from pathlib import Path

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qd.models.embedders.clap import CLAP, ClapEmbedder
from qd.models.embedders.clip_embedder import check_audio

COEFFICIENTS = 20
MFCC_WINDOW, MFCC_HOP = 2048, 512
HOW_TO_GET_CLAP = (
    f"CLAP is left out: its weights are not on this machine. Download them (about 0.8 GB) with `hf download {CLAP}`, "
    "or name their folder: `CLAP=folder`."
)


class MfccStatistics:
    """Mean and standard deviation over time of 20 MFCCs, and the standard deviation of their deltas.

    The mean of the deltas is left out: it is hardly more than the last value minus the first. Each statistic is
    standardised over other clips, and the vector has unit norm. It describes timbre, and no order in time beyond the
    deltas.

    Args:
        sample_rate: Sample rate of the audio, in Hz.
        mean: Mean of the statistics over the fitted clips, ``(embedding_width,)``.
        deviation: Standard deviation of the statistics over the fitted clips, ``(embedding_width,)``.
    """

    def __init__(self, sample_rate: int, mean: Tensor, deviation: Tensor) -> None:
        self.sample_rate, self.mean, self.deviation = sample_rate, mean, deviation

    @property
    def embedding_width(self) -> int:
        """Length of an embedding."""
        return len(self.mean)

    @property
    def clip_seconds(self) -> float:
        """No limit: audio of any length is embedded as a whole."""
        return math.inf

    @classmethod
    def fit(cls, audio: Tensor, sample_rate: int) -> MfccStatistics:
        """Fits mean and deviation to the clips ``(clips, samples)``, which should differ from the measured ones.

        Raises:
            ValueError: There are fewer than two clips.
        """
        if len(audio) < 2:
            raise ValueError(f"{len(audio)} clips to standardise MFCC statistics; expected 2 or more")
        statistics = mfcc_statistics(audio, sample_rate)
        return cls(sample_rate, statistics.mean(dim=0), statistics.std(dim=0).clamp_min(1e-6))

    def __call__(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Returns unit-norm embeddings ``(batch, embedding_width)`` of ``audio`` ``(batch, samples)``.

        Raises:
            ValueError: The audio is empty, or ``sample_rate`` is not the one of the fitted clips.
        """
        check_audio(audio, sample_rate, self.sample_rate)
        standard = (mfcc_statistics(audio, self.sample_rate) - self.mean) / self.deviation
        return F.normalize(standard, dim=-1).to(audio.device)


def mfcc_statistics(audio: Tensor, sample_rate: int) -> Tensor:
    """Returns means, deviations and deviations of the deltas ``(batch, 60)`` of ``(batch, samples)``, on the CPU."""
    coefficients = librosa.feature.mfcc(
        y=audio.float().cpu().numpy(), sr=sample_rate, n_mfcc=COEFFICIENTS, n_fft=MFCC_WINDOW, hop_length=MFCC_HOP
    )
    # A line is fitted to nine frames; a clip that is too short for them repeats its ends.
    deltas = librosa.feature.delta(coefficients, mode="nearest")
    statistics = [coefficients.mean(-1), coefficients.std(-1), deltas.std(-1)]
    return torch.from_numpy(np.concatenate(statistics, axis=-1).astype(np.float32))


def find_clap(folder: str | Path | None = None) -> ClapEmbedder | None:
    """Loads CLAP from a folder, or from the Hugging Face cache; downloads nothing.

    Args:
        folder: Folder written by ``save_pretrained`` or a download; None looks for :data:`CLAP` in the cache.

    Returns:
        The embedder; None if no folder was named and the cache does not have the model.

    Raises:
        ValueError: The folder does not have a CLAP model with its feature extractor.
    """
    if folder:
        return ClapEmbedder.from_pretrained(str(folder), local_files_only=True)
    try:
        return ClapEmbedder.from_pretrained(CLAP, local_files_only=True)
    except ValueError:
        return None
