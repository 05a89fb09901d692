"""What an embedder is measured beside: statistics of MFCCs, and CLAP. Both are embedders themselves."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qd.models.audio_vit import windows

COEFFICIENTS = 20
MFCC_WINDOW, MFCC_HOP = 2048, 512
CLAP = "laion/larger_clap_music"
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
            ValueError: ``sample_rate`` is not the one it was fitted at.
        """
        _check_rate(self, sample_rate)
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


class ClapEmbedder(nn.Module):
    """The audio half of a CLAP model of the ``transformers`` format.

    Clips longer than the model's own length (10 s) get the normalised mean over windows.

    Args:
        model: a ``ClapModel``.
        extractor: its ``ClapFeatureExtractor``, which repeats a short clip until it has the model's length.
    """

    def __init__(self, model: nn.Module, extractor: object) -> None:
        super().__init__()
        self.model, self.extractor = model.eval().requires_grad_(False), extractor

    @property
    def sample_rate(self) -> int:
        """In Hz; 48,000 for the published models."""
        return self.extractor.sampling_rate

    @property
    def embedding_width(self) -> int:
        """Length of an embedding."""
        return self.model.config.projection_dim

    def forward(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Unit-norm embeddings ``(batch, embedding_width)`` of ``audio`` ``(batch, samples)``.

        Raises:
            ValueError: ``sample_rate`` is not the model's.
        """
        _check_rate(self, sample_rate)
        longest = self.extractor.nb_max_samples
        clips = windows(audio, longest) if audio.shape[1] > longest else audio[:, None]
        heard = list(clips.flatten(0, 1).float().cpu().numpy())
        features = self.extractor(heard, sampling_rate=self.sample_rate, return_tensors="pt")["input_features"]
        # No clip is longer than the model's window. The extractor of a fusing model calls one of them so by chance.
        is_longer = torch.zeros(len(features), 1, dtype=torch.bool, device=audio.device)
        pooled = self.model.get_audio_features(features.to(audio.device), is_longer=is_longer).pooler_output
        return F.normalize(F.normalize(pooled, dim=-1).unflatten(0, clips.shape[:2]).mean(dim=1), dim=-1)


def find_clap(folder: str | Path | None = None) -> ClapEmbedder | None:
    """CLAP from a folder, or from the Hugging Face cache; nothing is downloaded.

    Args:
        folder: that ``save_pretrained`` wrote or a download filled; None looks for :data:`CLAP` in the cache.

    Returns:
        None where no folder was named and the cache does not hold the model.

    Raises:
        ValueError: the folder named does not hold a CLAP model with its feature extractor.
    """
    from transformers import ClapFeatureExtractor, ClapModel

    source = str(folder) if folder else CLAP
    if folder and not Path(folder).is_dir():
        raise ValueError(f"CLAP folder {source!r} does not exist; leave it out to look in the Hugging Face cache")
    try:
        extractor = ClapFeatureExtractor.from_pretrained(source, local_files_only=True)
        model, report = ClapModel.from_pretrained(source, local_files_only=True, output_loading_info=True)
    except (OSError, RuntimeError, ValueError) as error:
        if folder is None:
            return None
        raise ValueError(f"CLAP folder {source!r} cannot be loaded: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{source!r} is no CLAP model: {len(missing)} weights are missing, {missing[0]} among them")
    return ClapEmbedder(model, extractor)


def _check_rate(embedder: MfccStatistics | ClapEmbedder, sample_rate: int | None) -> None:
    if sample_rate is not None and sample_rate != embedder.sample_rate:
        raise ValueError(f"audio at {sample_rate} Hz, the embedder hears {embedder.sample_rate} Hz: resample it first")
