"""What an embedder is measured beside: statistics of MFCCs, and CLAP. Both are embedders themselves."""

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
    f"CLAP is left out: its weights are not on this machine. Get them (about 0.8 GB) with `hf download {CLAP}`, or "
    "name a folder that holds them: `CLAP=folder`."
)


class MfccStatistics:
    """Mean and standard deviation over time of 20 MFCCs, and the standard deviation of their deltas (whose mean is
    hardly more than the last value minus the first), each standardised over other clips; then unit norm.

    What a musicologist had before learned embeddings: it hears timbre, and no order in time beyond the deltas.

    Args:
        sample_rate: of the audio, in Hz.
        mean, deviation: of the statistics over the fitted clips, ``(embedding_width,)``.
    """

    def __init__(self, sample_rate: int, mean: Tensor, deviation: Tensor) -> None:
        self.sample_rate, self.mean, self.deviation = sample_rate, mean, deviation

    @property
    def embedding_width(self) -> int:
        """Length of an embedding."""
        return len(self.mean)

    @property
    def clip_seconds(self) -> float:
        """No limit: audio of any length is heard as a whole."""
        return math.inf

    @classmethod
    def fit(cls, audio: Tensor, sample_rate: int) -> MfccStatistics:
        """Standardised over the clips ``(clips, samples)``, which should be others than those to be measured.

        Raises:
            ValueError: fewer than two clips.
        """
        if len(audio) < 2:
            raise ValueError(f"{len(audio)} clips to standardise MFCC statistics by: expected 2 or more")
        statistics = mfcc_statistics(audio, sample_rate)
        return cls(sample_rate, statistics.mean(dim=0), statistics.std(dim=0).clamp_min(1e-6))

    def __call__(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Unit-norm embeddings ``(batch, embedding_width)`` of ``audio`` ``(batch, samples)``.

        Raises:
            ValueError: the audio is empty, or ``sample_rate`` is not the one that the statistics were fitted at.
        """
        check_audio(audio, sample_rate, self.sample_rate)
        standard = (mfcc_statistics(audio, self.sample_rate) - self.mean) / self.deviation
        return F.normalize(standard, dim=-1).to(audio.device)


def mfcc_statistics(audio: Tensor, sample_rate: int) -> Tensor:
    """Means, deviations and deltas' deviations ``(batch, 60)`` of ``audio`` ``(batch, samples)``, on the CPU."""
    coefficients = librosa.feature.mfcc(
        y=audio.float().cpu().numpy(), sr=sample_rate, n_mfcc=COEFFICIENTS, n_fft=MFCC_WINDOW, hop_length=MFCC_HOP
    )
    # Nine frames are fitted by a line; a clip that is too short for them repeats its ends.
    deltas = librosa.feature.delta(coefficients, mode="nearest")
    statistics = [coefficients.mean(-1), coefficients.std(-1), deltas.std(-1)]
    return torch.from_numpy(np.concatenate(statistics, axis=-1).astype(np.float32))


def find_clap(folder: str | Path | None = None) -> ClapEmbedder | None:
    """CLAP from a folder, or from the Hugging Face cache; nothing is downloaded.

    Args:
        folder: that ``save_pretrained`` wrote or a download filled; None looks for :data:`CLAP` in the cache.

    Returns:
        None where no folder was named and the cache does not hold the model.

    Raises:
        ValueError: the folder named does not hold a CLAP model with its feature extractor.
    """
    if folder:
        return ClapEmbedder.from_pretrained(str(folder), local_files_only=True)
    try:
        return ClapEmbedder.from_pretrained(CLAP, local_files_only=True)
    except ValueError:
        return None
